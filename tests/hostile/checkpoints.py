"""Checkpoints of runs that did not end: other networks, other optimisers, values that no step leaves behind."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse
from tests.hostile.weights import FILES


def _checkpoint(make: Make) -> Make:
    """What is hostile as a weight file, as both of a run's checkpoints."""

    def both(world: Path) -> None:
        make(world)
        (world / "run" / "checkpoint.pt").unlink()
        (world / "weights.pt").rename(world / "run" / "checkpoint.pt")
        (world / "run" / "checkpoint.previous.pt").unlink(missing_ok=True)

    return both


def in_run(change: Callable[[dict[str, Any]], Any]) -> Make:
    """A run that did not end, with its checkpoint changed."""

    def make(world: Path) -> None:
        path = world / "run" / "checkpoint.pt"
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
        (world / "run" / "checkpoint.previous.pt").unlink(missing_ok=True)
        (world / "run" / "summary.json").unlink()

    return make


AS_CHECKPOINT = (
    *("pickle that calls os.system", "pickle in a zip that calls a command", "zip bomb"),
    *(
        "zip of compressed parts",
        "zip of parts that overlap",
        "file of 1 TB",
        "pipe",
        "list for a state dict",
        "no bytes",
    ),
    *("pickle that doubles a list 60 times", "tensor of 10^12 elements in 4 bytes"),
)


def _kept(change: Callable[[dict[str, Any]], Any]) -> Make:
    """A run of which what the optimiser keeps of a parameter was changed."""
    return in_run(lambda state: change(state["optimizer"]["state"][0]))


def _beside(name: str, change: Callable[[Path], Any]) -> Make:
    """A run that did not end, with another file."""

    def make(world: Path) -> None:
        in_run(lambda state: None)(world)
        change(world / "run" / name)

    return make


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


STATES: dict[str, Make] = {
    "step of 10^18": in_run(lambda s: s.update(step=10**18)),
    "step of -1": in_run(lambda s: s.update(step=-1)),
    "step that is a text": in_run(lambda s: s.update(step="1")),
    "seconds that are no number": in_run(lambda s: s.update(seconds=float("nan"))),
    "losses of 10^12 elements": in_run(lambda s: s.update(losses=[torch.zeros(1).expand(10**6, 10**6)])),
    "losses that are no tensors": in_run(lambda s: s.update(losses="abc")),
    "student of another network": in_run(lambda s: s.update(student={"x": torch.zeros(1)})),
    "student of 10^12 elements": in_run(
        lambda s: s["student"].update({"linear.weight": torch.zeros(1).expand(10**6, 10**6)})
    ),
    "student of no numbers": in_run(
        lambda s: s["student"].update({"linear.weight": s["student"]["linear.weight"] * float("nan")})
    ),
    "optimizer that is a list": in_run(lambda s: s.update(optimizer=[])),
    "optimizer of other tensors": in_run(
        lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(1).expand(10**6, 10**6))
    ),
    "optimizer with other groups": in_run(lambda s: s["optimizer"].update(param_groups=[])),
    "optimizer with a rate of text": in_run(lambda s: s["optimizer"]["param_groups"][0].update(lr="1")),
    "scheduler that is a text": in_run(lambda s: s.update(scheduler="x")),
    "scheduler that replaces methods": in_run(lambda s: s["scheduler"].update(step=1, get_lr=1)),
    "scaler of other keys": in_run(lambda s: s.update(scaler={"x": 1})),
    "arithmetic that is a text": in_run(lambda s: s.update(arithmetic="\x1b[2J")),
    "scheduler of another length": in_run(lambda s: s["scheduler"].update(total_iters=0)),
    "scheduler that is elsewhere": in_run(lambda s: s["scheduler"].update(last_epoch=10**9)),
    "seconds of 400 digits": in_run(lambda s: s.update(seconds=10**400)),
    "no seconds": in_run(lambda s: s.update(seconds=0.0)),
    "losses of whole numbers": in_run(lambda s: s.update(losses=[torch.tensor(1)])),
    "more losses than steps": in_run(lambda s: s.update(losses=[torch.tensor(1.0)] * 99)),
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
        sparse(world / "run" / "checkpoint.pt", 15 << 30),
    ),
    "log of 1 GB": _beside("metrics.jsonl", lambda path: sparse(path, 1 << 30)),
    "log that is a pipe": _beside("metrics.jsonl", _pipe),
}
CASES = (
    *(
        Case(
            name=f"checkpoint: {name}", make=_checkpoint(FILES[name][0]), entrances=("resume",), said="checkpoint.pt"
        )
        for name in AS_CHECKPOINT
    ),
    *(
        Case(name=f"checkpoint: {name}", make=make, entrances=("resume",), said="run")
        for name, make in STATES.items()
    ),
)
