"""Hostile checkpoints of unfinished runs: damaged files, other networks, values that no training step produces."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from distill.training.checkpoint import CHECKPOINT_NAME, PREVIOUS_NAME, read_checkpoint, save_checkpoint
from distill.weights.files import tensors_digest
from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse
from tests.hostile.weights import TENSORS


def _as_checkpoint(make: Make) -> Make:
    """Use a hostile ``teacher.safetensors`` as the only checkpoint of an unfinished run."""

    def replace(world: Path) -> None:
        teacher = world / "teacher.safetensors"
        good = teacher.read_bytes()
        make(world)
        (world / "run" / CHECKPOINT_NAME).unlink()
        teacher.rename(world / "run" / CHECKPOINT_NAME)
        teacher.write_bytes(good)
        _end_early(world)

    return replace


def _end_early(world: Path) -> None:
    (world / "run" / PREVIOUS_NAME).unlink(missing_ok=True)
    (world / "run" / "summary.json").unlink()


def in_run(change: Callable[[dict[str, Any]], Any]) -> Make:
    """Change the checkpoint of an unfinished run."""

    def make(world: Path) -> None:
        state = read_checkpoint(world / "run" / CHECKPOINT_NAME)
        change(state)
        save_checkpoint(world / "run", state)
        _end_early(world)

    return make


def _metadata(text: str) -> Make:
    """Write a checkpoint with the metadata ``text`` and a correct digest."""

    def make(world: Path) -> None:
        data = safetensors.torch.save({}, {"state": text, "sha256": tensors_digest({}, text)})
        (world / "run" / CHECKPOINT_NAME).write_bytes(data)
        _end_early(world)

    return make


AS_CHECKPOINT = (
    *("header of 2^63", "header of 90 MB", "header nested 100,000 deep", "header with 300,000 tensors"),
    *("tensor longer than the file", "tensor of 2^64 elements", "tensor of -1 elements", "tensors that overlap"),
    *("bytes behind the last tensor", "pickle by this name", "file of 1 TB", "pipe", "device"),
)
METADATA = {
    "JSON nested 100,000 deep": "[" * 100_000,
    "JSON of a text": '"abc"',
    "JSON of a list": "[[]]",
    "JSON with a key of 5,000 digits": '{"%s": 1}' % ("9" * 5000),
    "JSON that names a tensor that is not there": '{"student": {"tensor": "x"}}',
    "JSON that names a tensor by a list": '{"student": {"tensor": []}}',
    "no JSON": "",
}


def _kept(change: Callable[[dict[str, Any]], Any]) -> Make:
    """Change the optimizer's state of the first parameter in the checkpoint of an unfinished run."""
    return in_run(lambda state: change(state["optimizer"]["state"][0]))


def _eight_bits(state: dict[str, Any]) -> None:
    for held in state["optimizer"]["state"].values():
        held.update({name: value.to(torch.float8_e4m3fn) for name, value in held.items()})


def _beside(name: str, change: Callable[[Path], Any]) -> Make:
    """Change another file of an unfinished run."""

    def make(world: Path) -> None:
        in_run(lambda state: None)(world)
        change(world / "run" / name)

    return make


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


STATES: dict[str, Make] = {
    "arithmetic of 1 MB": in_run(lambda s: s["arithmetic"].update(torch="x" * 1_000_000)),
    "step of 10^18": in_run(lambda s: s.update(step=10**18)),
    "step of -1": in_run(lambda s: s.update(step=-1)),
    "step that is a text": in_run(lambda s: s.update(step="1")),
    "seconds that are no number": in_run(lambda s: s.update(seconds=float("nan"))),
    "losses that are no tensors": in_run(lambda s: s.update(losses="abc")),
    "student of another network": in_run(lambda s: s.update(student={"x": torch.zeros(1)})),
    "student of no numbers": in_run(
        lambda s: s["student"].update({"linear.weight": s["student"]["linear.weight"] * float("nan")})
    ),
    "optimizer that is a list": in_run(lambda s: s.update(optimizer=[])),
    "optimizer with other groups": in_run(lambda s: s["optimizer"].update(param_groups=[])),
    "optimizer with a rate of text": in_run(lambda s: s["optimizer"]["param_groups"][0].update(lr="1")),
    "scheduler that is a text": in_run(lambda s: s.update(scheduler="x")),
    "scheduler that replaces methods": in_run(lambda s: s["scheduler"].update(step=1, get_lr=1)),
    "scaler of other keys": in_run(lambda s: s.update(scaler={"x": 1})),
    "arithmetic that is a text": in_run(lambda s: s.update(arithmetic="\x1b[2J")),
    "scheduler of another length": in_run(lambda s: s["scheduler"].update(total_iters=0)),
    "scheduler at another step": in_run(lambda s: s["scheduler"].update(last_epoch=10**9)),
    "seconds of 400 digits": in_run(lambda s: s.update(seconds=10**400)),
    "no seconds": in_run(lambda s: s.update(seconds=0.0)),
    "losses of whole numbers": in_run(lambda s: s.update(losses=torch.tensor([1]))),
    "more losses than steps": in_run(lambda s: s.update(losses=torch.ones(99))),
    "optimizer with a beta of 1": in_run(lambda s: s["optimizer"]["param_groups"][0].update(betas=(1.0, 1.0))),
    "optimizer that maximizes": in_run(lambda s: s["optimizer"]["param_groups"][0].update(maximize=True)),
    "optimizer without a moment": _kept(lambda kept: kept.pop("exp_avg")),
    "optimizer with None for a moment": _kept(lambda kept: kept.update(exp_avg=None)),
    "optimizer with a moment of one number": _kept(lambda kept: kept.update(exp_avg=torch.tensor(0.0))),
    "optimizer with a moment of whole numbers": _kept(lambda kept: kept.update(exp_avg=kept["exp_avg"].long())),
    "optimizer with a moment of no numbers": _kept(lambda kept: kept["exp_avg"].fill_(float("nan"))),
    "optimizer with a negative square": _kept(lambda kept: kept["exp_avg_sq"].fill_(-1.0)),
    "optimizer at step -1": _kept(lambda kept: kept["step"].fill_(-1.0)),
    "file of 15 GB": lambda world: (
        in_run(lambda s: None)(world),
        sparse(world / "run" / CHECKPOINT_NAME, 15 << 30),
    ),
    "log of 1 GB": _beside("metrics.jsonl", lambda path: sparse(path, 1 << 30)),
    "log that is a pipe": _beside("metrics.jsonl", _pipe),
}
MAKES: dict[str, tuple[Make, str]] = {
    **{name: (_as_checkpoint(TENSORS[name][0]), "checkpoint") for name in AS_CHECKPOINT},
    **{name: (_metadata(text), CHECKPOINT_NAME) for name, text in METADATA.items()},
    **{name: (make, "run") for name, make in STATES.items()},
    "moments of 8 bits": (in_run(_eight_bits), "torch.float8_e4m3fn"),
}
CASES = tuple(
    Case(name=f"checkpoint: {name}", make=make, entrances=("resume",), said=said)
    for name, (make, said) in MAKES.items()
)
