"""The directory of a run: the names of its files, who may write there, and what it already holds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.errors import DistillError
from distill.runtime.distributed import Ranks
from distill.training.checkpoint import CHECKPOINT_NAME, holds_checkpoint, load_checkpoint
from distill.weights.load import largest_file
from manifests.format.canonical_json import parse_json
from manifests.format.digest import file_digest
from manifests.support.files import (
    PART_PREFIX,
    describe_os_error,
    hold_folder,
    is_plain,
    name_as_text,
    read_regular_file,
    remove_parts,
)
from manifests.support.system_files import entries

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
SUMMARY_NAME = "summary.json"
CLASSES_NAME = "classes.json"
BOARD_NAME = "tensorboard"
BAD_BATCH_NAME = "nonfinite.json"
STUDENT_NAME = "student.safetensors"
TEACHER_NAME = "teacher.safetensors"
SUMMARY_KEYS = frozenset({"samples_seen", "images_per_second", "seconds", "seed", "sha256"})
logger = logging.getLogger(__name__)


@contextmanager
def run_directory(out: Path, resume: bool, ranks: Ranks) -> Iterator[None]:
    """Lock ``out`` for a run while the block runs, on the main rank; see ``own_folder``."""
    remedy = "go on with --resume"
    if ranks.is_main:
        check_folder(out, resume)
    with own_folder(out, remedy) if ranks.is_main else explain_errors(out, remedy):
        yield


def check_folder(out: Path, resume: bool) -> None:
    """Check that a run may begin in ``out``, or go on there with ``resume``."""
    if name_as_text(str(out)) != str(out):
        raise DistillError(
            f"{out}: its path is not UTF-8 text, and weights could not be read from there; choose another --out"
        )
    try:
        occupied = out.exists() and any(not item.name.startswith(PART_PREFIX) for item in entries(out))
    except OSError as error:
        raise DistillError(f"{out}: cannot be a run directory: {error.strerror}") from error
    if occupied and not resume:
        raise DistillError(f"{out}: is not empty; add --resume to go on with its run, or choose another --out")
    if occupied and not holds_checkpoint(out):
        raise DistillError(
            f"{out}: holds files but no {CHECKPOINT_NAME}, so no run to go on with; choose another --out"
        )


@contextmanager
def own_folder(out: Path, remedy: str) -> Iterator[None]:
    """Create ``out`` and lock it while the block runs; a folder that is still empty then is removed."""
    existed = out.exists()
    try:
        with explain_errors(out, remedy):
            out.mkdir(parents=True, exist_ok=True)
            with hold_folder(out):
                remove_parts(out)
                yield
    finally:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def explain_errors(out: Path, remedy: str) -> Iterator[None]:
    """Raise errors of the system as a DistillError that names ``out`` and says how to go on."""
    try:
        yield
    except BlockingIOError as error:
        raise DistillError(f"{out}: another program is writing here; choose another --out") from error
    except BrokenPipeError:
        raise  # the reader of stdout has ended; nothing is wrong with the folder
    except torch.OutOfMemoryError as error:
        raise DistillError(
            f"the GPU has too little memory: {str(error).splitlines()[0][:160]}; lower data.batch_size, "
            "or set data.cache to ram"
        ) from error
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)} and {remedy}") from error


def read_progress(
    out: Path, weights_name: str, identity: dict[str, Any], network: nn.Module
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the last checkpoint's state and the summary of a finished run, each None if there is none.

    Only the size of ``network`` is used: it limits the length of the files.
    """
    most = largest_file(network)
    state = load_checkpoint(out, identity, most, logger.info)
    summary = finished_summary(out)
    if summary is not None and not _is_result(out / weights_name, summary["sha256"], most):
        logger.info(f"{out / weights_name}: missing or damaged; it is made again")
        summary = None
    if summary is not None:
        logger.info("this run is already finished and not evaluated again; use distill eval for other data")
    return state, summary


def finished_summary(out: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run, else None."""
    path = out / SUMMARY_NAME
    if not path.exists():
        return None
    summary = parse_json(read_regular_file(path, 1 << 20), str(path))
    if not isinstance(summary, dict) or any(summary.get(key) is None for key in SUMMARY_KEYS):
        raise DistillError(f"{path}: damaged; delete it to write it again from the last checkpoint")
    return summary


def _is_result(path: Path, sha256: str, most: int) -> bool:
    return is_plain(path) and path.stat().st_size <= most and file_digest(path) == sha256
