"""What every training command does with its run directory: begin or go on, train, and leave a result."""

import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.config.schema import Config, SupervisedConfig, TrainConfig
from distill.data.batches import View
from distill.errors import DistillError, Say
from distill.evaluation.evaluator import Measure, Verdict
from distill.models import build_model
from distill.models.norms import set_batch_norms
from distill.runtime.compile import Engine
from distill.runtime.distributed import ALONE, Ranks
from distill.runtime.precision import choose_precision
from distill.runtime.randomness import Stream
from distill.training.checkpoint import load_checkpoint, require_identity
from distill.training.resume import restore
from distill.training.run_identity import weight_settings, without_seed
from distill.training.session import CONFIG_NAME, SUMMARY_NAME, Session, check_folder, finished_summary, open_board
from distill.training.trainer import Loop, Progress
from distill.weights.files import save_weights
from distill.weights.load import largest_file
from manifests.format.canonical_json import canonical_json
from manifests.format.digest import file_digest
from manifests.support.console import detail
from manifests.support.counts import counted
from manifests.support.files import describe_os_error, hold_folder, is_plain, remove_parts, write_atomically

CLASSES_NAME = "classes.json"
Purpose = Literal["init", "init from labels"]
"""Of a network's first weights: a student's, or those of a network that is trained from labels."""

STUDENT_NAME = "student.safetensors"
TEACHER_NAME = "teacher.safetensors"


@contextmanager
def run_directory(out: Path, resume: bool, ranks: Ranks = ALONE) -> Iterator[None]:
    """A folder for a run, which its first rank holds; see ``own_folder``.

    Raises:
        DistillError: it is not free, or cannot be written.
    """
    again = "go on with --resume"
    if not ranks.first:
        with in_words(out, again):
            yield
        return
    check_folder(out, resume)
    with own_folder(out, again):
        yield


@contextmanager
def own_folder(out: Path, again: str) -> Iterator[None]:
    """Hold ``out`` as this program's alone; where nothing came of its work, it leaves no folder behind.

    Raises:
        DistillError: another program holds it, or it cannot be written; ``again`` says how to go on then.
    """
    existed = out.exists()
    try:
        with in_words(out, again):
            out.mkdir(parents=True, exist_ok=True)
            with hold_folder(out):
                remove_parts(out)
                yield
    finally:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()  # nothing came of it


@contextmanager
def in_words(out: Path, again: str) -> Iterator[None]:
    """Say of what fails for a reason outside of the program where, why, and how to go on.

    Raises:
        DistillError: it did.
    """
    try:
        yield
    except BlockingIOError as error:
        raise DistillError(f"{out}: another program is writing here; choose another --out") from error
    except BrokenPipeError:
        raise  # of who reads what is said; nothing is wrong with the folder
    except torch.OutOfMemoryError as error:
        raise DistillError(
            f"the GPU has too little memory: {str(error).splitlines()[0][:160]}; lower data.batch_size, "
            "or set data.cache to ram"
        ) from error
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)} and {again}") from error


def begin(
    out: Path, name: str, identity: dict[str, Any], network: nn.Module, say: Say
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The state to go on from, and the summary of a run that has ended with ``name``; each None where there is none.

    ``network``, of which only the size is looked at, says how long their files may be.

    Raises:
        DistillError: what is there is damaged, or of another run.
    """
    most = largest_file(network)
    state = load_checkpoint(out, identity, most, say)
    done = finished_summary(out)
    if done is not None and not _is_result(out / name, done["sha256"], most):
        say(f"{out / name}: missing or damaged; it is made again")
        done = None
    if done is not None:
        say("this run is already finished; its figures were measured then")
    return state, done


def _is_result(path: Path, sha256: str, most: int) -> bool:
    return is_plain(path) and path.stat().st_size <= most and file_digest(path) == sha256


def identity_of(config: Config | SupervisedConfig, **more: Any) -> dict[str, Any]:
    """What a checkpoint must share with the run that resumes it: all that moves a weight, and no path."""
    return {
        group: json.dumps(value) for group, value in weight_settings(config.model_dump(mode="json")).items()
    } | more


def config_digests(config: Config | SupervisedConfig, view: View, **more: Any) -> dict[str, str]:
    """SHA-256, as hex, of all in ``config`` that moves a weight, with the order it gave ``view``; and without seeds.

    They are the same wherever files and caches lie. The second is of ``more`` too.
    """
    described = view.describe()
    seedless = {
        "config": without_seed(weight_settings(config.model_dump(mode="json"))),
        "view": without_seed(described),
    }
    return {
        "config_sha256": hashlib.sha256(canonical_json(identity_of(config, view=described))).hexdigest(),
        "config_sha256_without_seed": hashlib.sha256(canonical_json(seedless | more)).hexdigest(),
    }


def make_engine(config: TrainConfig, device: torch.device, steps: int, say: Say, ranks: Ranks = ALONE) -> Engine:
    """How the networks of a run of ``steps`` steps are computed on ``device``; prepares this process for it."""
    precision = choose_precision(config.precision, device, say)
    engine = Engine(device=device, precision=precision, compile=config.compile, steps=steps, say=say, ranks=ranks)
    engine.prepare_process()
    return engine


def new_network(
    arch: str,
    num_classes: int,
    seed: int,
    purpose: Purpose,
    *,
    bn_momentum: float | None = None,
    bn_eps: float | None = None,
) -> nn.Module:
    """Initialise a network from the draws of ``seed`` and ``purpose``.

    A student and its teacher often have one architecture and one seed; their purposes differ, so that a student does
    not begin where its teacher began. Initialisation reads torch's global generator; nothing else in a run does.

    Raises:
        DistillError: no network has this name, or it has no batch norm to set.
    """
    torch.manual_seed(Stream(seed, purpose, 0).word() >> 1)
    network = build_model(arch, num_classes)
    set_batch_norms(network, momentum=bn_momentum, eps=bn_eps)
    return network


def average_of(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential moving average of weights and buffers, or None without a ``decay``."""
    if decay is None:
        return None
    return AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True, device=next(network.parameters()).device
    )


def conduct(
    loop: Loop,
    config: Config | SupervisedConfig,
    out: Path,
    identity: dict[str, Any],
    state: dict[str, Any] | None,
    measure: Measure | None,
    say: Say,
    begun: Callable[[], None] = lambda: None,
) -> Progress:
    """Train ``loop`` to its last step, from the checkpoint ``state`` on; returns how long that took.

    ``begun`` is called when the folder is this run's, before the first step.

    Raises:
        DistillError: the loss is no longer a finite number.
        InterruptedRun: a signal came; a checkpoint was written.
    """
    view = {"view": json.dumps(loop.view.describe(), sort_keys=True)}
    loop.ranks.require_same(view | {"precision": loop.precision})
    arithmetic = loop.arithmetic
    if state is not None:
        require_identity(state, view, out)
        if state["arithmetic"] != arithmetic:
            say(f"going on with {arithmetic} after {state['arithmetic']}: weights will differ in rounding")
    detail(config.to_yaml().rstrip())
    detail(f"{counted(loop.steps, 'step')} of {loop.view.batch_size}; arithmetic {arithmetic}")
    progress = restore(loop, out, state)
    board = config.train.tensorboard and loop.ranks.first
    session = Session(
        loop=loop,
        progress=progress,
        out=out,
        identity=identity | view,
        arithmetic=arithmetic,
        measure=measure,
        every=config.eval.every,
        checkpoint_seconds=config.train.checkpoint_seconds,
        log_steps=config.train.log_steps,
        board=open_board(out, progress.step * loop.view.batch_size + 1) if board else None,
    )
    session.save()
    if loop.ranks.first:
        write_atomically(out / CONFIG_NAME, config.to_yaml().encode())
        begun()
    session.train()
    return progress


def finish(
    loop: Loop,
    progress: Progress,
    out: Path,
    name: str,
    network: dict[str, Any],
    verdict: Verdict,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """Write the result as ``name`` and, last of all, the summary, which says that the run has ended.

    ``network`` says what the result is, as ``encode_weights`` takes it; ``origin``, what it was made from. Returns
    the summary: what the ``verdict`` says, the origin, and how long it took on what.
    """
    if not all(bool(torch.isfinite(value).all()) for value in loop.result.state_dict().values()):
        raise DistillError("the result holds weights that are no finite numbers; lower optim.lr and start again")
    save_weights(out / name, loop.result, mean=loop.mean, std=loop.std, **network)
    samples = progress.step * loop.view.batch_size
    if verdict.classes:
        write_atomically(out / CLASSES_NAME, (json.dumps(verdict.classes) + "\n").encode())
    versions = {"distill": metadata.version("single-image-distillation"), "python": platform.python_version()}
    whole = (
        verdict.summary
        | network
        | origin
        | {
            "weights": "last step" if loop.average is None else "average (train.ema) at the last step",
            "size": loop.view.size,
            "sha256": file_digest(out / name),
            "samples_seen": samples,
            "images_per_second": round(samples / progress.seconds, 1),
            "seconds": round(progress.seconds, 1),
            "environment": versions | {"machine": platform.machine()} | loop.arithmetic,
        }
    )
    write_atomically(out / SUMMARY_NAME, (json.dumps(whole, indent=1) + "\n").encode())
    return whole
