"""Check, lock and read the directory of a run, and write the log of the run."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.callbacks import Callback, call
from distill.errors import DistillError
from distill.runtime.distributed import Ranks
from distill.training.checkpoint import CHECKPOINT_NAME, has_checkpoint, load_checkpoint
from distill.weights.load import largest_file
from manifests.format.canonical_json import parse_json
from manifests.format.digest import file_digest
from manifests.support import files
from manifests.support.system_files import entries

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
SUMMARY_NAME = "summary.json"
CLASSES_NAME = "classes.json"
BAD_BATCH_NAME = "nonfinite.json"
STUDENT_NAME = "student.safetensors"
TEACHER_NAME = "teacher.safetensors"
SUMMARY_KEYS = frozenset({"samples_seen", "images_per_second", "seconds", "seed", "sha256"})
logger = logging.getLogger(__name__)


@contextmanager
def run_directory(out: Path, resume: bool, ranks: Ranks) -> Iterator[None]:
    """Check the run directory ``out``, and lock it while the block runs. Only the main rank checks and locks."""
    remedy = "continue with --resume"
    if ranks.is_main:
        check_folder(out, resume)
        if resume and not has_checkpoint(out):
            logger.info(f"{out}: contains no checkpoint, so the run starts at the first step")
    with own_folder(out, remedy) if ranks.is_main else explain_errors(out, remedy):
        yield


def check_folder(out: Path, resume: bool, *, several: bool = False) -> None:
    """Check that a run, or runs of ``several`` seeds, may start in ``out``. With ``resume``, runs may continue."""
    if several and has_checkpoint(out):
        raise DistillError(f"{out}: the folder contains a run of one seed; choose another --out for several seeds")
    if files.name_as_text(str(out)) != str(out):
        raise DistillError(f"{out}: the path is not UTF-8 text, so torch cannot read it; choose another --out")
    try:
        occupied = out.exists() and any(not item.name.startswith(files.PART_PREFIX) for item in entries(out))
    except OSError as error:
        raise DistillError(f"{out}: the folder cannot be read: {error.strerror}; choose another --out") from error
    if occupied and not resume:
        raise DistillError(f"{out}: the folder is not empty; continue with --resume, or choose another --out")
    if occupied and not several and not has_checkpoint(out):
        raise DistillError(f"{out}: contains no {CHECKPOINT_NAME}, so no run can continue; choose another --out")


@contextmanager
def own_folder(out: Path, remedy: str) -> Iterator[None]:
    """Create the folder ``out``, and lock it while the block runs. Then remove a new folder that is still empty.

    ``remedy`` is the advice in error messages.
    """
    existed = out.exists()
    try:
        with explain_errors(out, remedy):
            out.mkdir(parents=True, exist_ok=True)
            with files.hold_folder(out):
                files.remove_parts(out)
                yield
    finally:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def explain_errors(out: Path, remedy: str) -> Iterator[None]:
    """Convert OSError and a full GPU memory to DistillError. Most messages name ``out`` and end with ``remedy``."""
    try:
        yield
    except BlockingIOError as error:
        raise DistillError(f"{out}: another program is writing in this folder; choose another --out") from error
    except BrokenPipeError:
        raise  # the program that reads stdout has ended; the folder is intact
    except torch.OutOfMemoryError as error:
        found, action = str(error).splitlines()[0][:160], "lower data.batch_size, or set data.cache to ram"
        raise DistillError(f"the memory of the GPU is full: {found}; {action}") from error
    except OSError as error:
        raise DistillError(f"{files.describe_os_error(error, out)} and {remedy}") from error


def read_progress(
    out: Path, weights_name: str, identity: dict[str, Any], network: nn.Module, samples: int = 0
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the state in the last checkpoint in ``out``, and the summary of a finished run. Either can be None.

    ``identity`` describes the run that the checkpoint must belong to. ``weights_name`` is the name of the file of the
    trained network. A file that is too large for ``network`` is not read. A run of fewer than ``samples`` samples has
    not finished.
    """
    most = largest_file(network)
    state = load_checkpoint(out, {"initial_sha256": None} | identity, most, logger.info)
    summary = finished_summary(out)
    if summary is None or (type(seen := summary.get("samples_seen")) is int and seen < samples):
        return state, None
    path = out / weights_name
    if not (files.is_plain(path) and path.stat().st_size <= most and file_digest(path) == summary["sha256"]):
        logger.info(f"{path}: the file is missing or damaged; it will be written again")
        return state, None
    logger.info("this run is already finished and is not evaluated again; use distill eval for other data")
    return state, summary


def finished_summary(out: Path) -> dict[str, Any] | None:
    """Return the summary in the run directory ``out``, or None if the run has not finished."""
    path = out / SUMMARY_NAME
    if not path.exists():
        return None
    summary = parse_json(files.read_regular_file(path, 1 << 20), str(path))
    if not isinstance(summary, dict) or any(summary.get(key) is None for key in SUMMARY_KEYS):
        raise DistillError(f"{path}: the file is not a summary of a run; delete it and resume the run with --resume")
    return summary


class MetricsLog:
    """If ``enabled``, append figures such as the loss to ``metrics.jsonl`` in ``out``, and call the callbacks."""

    def __init__(self, out: Path, batch_size: int, *, enabled: bool, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = callbacks
        self._path, self._batch_size, self._enabled = out / METRICS_NAME, batch_size, enabled

    def saved(self, step: int) -> None:
        """Tell the callbacks that a checkpoint was written after ``step`` steps."""
        call(self._callbacks, "on_checkpoint", step * self._batch_size, self._path.parent / CHECKPOINT_NAME)

    def write(self, step: int, figures: dict[str, Any], event: str = "on_log") -> None:
        """Append figures that were measured after ``step`` steps. ``event`` is the method of callbacks to call."""
        if not self._enabled:
            return
        samples = step * self._batch_size
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "samples": samples} | figures) + "\n")
        call(self._callbacks, event, samples, figures)
