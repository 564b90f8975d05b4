"""Test networks inside wrappers of frameworks: the unwrapped network computes the same logits.

If a file contains several networks, the right network is read, or the file is refused.
"""

import argparse
import collections
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from distill.errors import DistillError
from distill.models import build_model
from distill.weights import load
from distill.weights.files import load_weights
from distill.weights.load import build_filled, count_classes
from tests.conftest import Program, assert_one_line
from tests.distill.weights.test_foreign_names import alive

State = dict[str, Any]
Wrap = Callable[[State], Any]


def prefixed(*prefixes: str) -> Wrap:
    return lambda state: {"".join(prefixes) + name: value for name, value in state.items()}


def under(*keys: str) -> Wrap:
    def wrap(state: State) -> Any:
        for key in reversed(keys):
            state = {key: state, "epoch": 3, "best_acc": torch.tensor(93.1)}
        return state

    return wrap


def averaged(state: State) -> State:
    """Return the state as torch's ``AveragedModel`` writes it."""
    return {"n_averaged": torch.tensor(12)} | prefixed("module.")(state)


def profiled(state: State) -> State:
    """Return the state as thop leaves it: every module, also the network itself, has two more numbers."""
    modules = {"", *(name.rpartition(".")[0] + "." for name in state)}
    sums = itertools.product(modules, ("total_ops", "total_params"))
    return state | {module + name: torch.zeros(1, dtype=torch.float64) for module, name in sums}


def inside(state: State) -> State:
    """Return a state with the names of single modules that were parallel, compiled or recomputed."""
    changes = {"layer1.": "layer1.module.", "layer2.0.": "layer2.0._orig_mod._checkpoint_wrapped_module."}
    for old, new in changes.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    return prefixed("module.")(state)


def lightning(state: State) -> Any:
    return {
        "epoch": 99,
        "global_step": 39000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model.")(state)
        | {"criterion.weight": torch.ones(10), "train_acc.correct": torch.tensor(0)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 99}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9), "path": "x.ckpt"}},
        "optimizer_states": [
            {"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        ],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": collections.defaultdict(
            list, {"lr": np.float64(0.1), "args": argparse.Namespace(a=Path("x"))}
        ),
    }


def optimised(state: State) -> Any:
    """Return a checkpoint with Adam's moments. The moments have the shapes of the network, but no names."""
    moments = {number: {"step": torch.tensor(5.0), "exp_avg": value} for number, value in enumerate(state.values())}
    return {"net": state, "optimizer": {"state": moments, "param_groups": []}, "rng": [torch.zeros(5)]}


def chained(*wraps: Wrap) -> Wrap:
    def wrap(state: State) -> Any:
        for each in wraps:
            state = each(state)
        return state

    return wrap


WORDS = ("module.", "_orig_mod.", "model.", "net.", "student.", "backbone.", "encoder.", "ema_model.", "a.b.c.")
WRAPPINGS: dict[str, Wrap] = {
    "inside of names": inside,
    "counters of half precision": lambda state: {
        name: value.half() if "num_batches" in name else value for name, value in state.items()
    },
    "counters in arrays": lambda state: {
        name: value.reshape(1) if "num_batches" in name else value for name, value in state.items()
    },
    **{word: prefixed(word) for word in WORDS},
    **{f"{a}{b}": prefixed(a, b) for a, b in itertools.permutations(("module.", "_orig_mod.", "model."), 2)},
    **{"".join(order): prefixed(*order) for order in itertools.permutations(("module.", "_orig_mod.", "network."))},
    **{key: under(key) for key in ("state_dict", "model", "weights", "ema", "teacher", "params")},
    "state_dict in model in checkpoint": under("checkpoint", "model", "state_dict"),
    "AveragedModel": averaged,
    "AveragedModel of DDP of compiled": chained(prefixed("module._orig_mod."), averaged),
    "compiled AveragedModel of DDP": chained(prefixed("module."), averaged, prefixed("_orig_mod.")),
    "AveragedModel in a dict": chained(averaged, under("ema_state_dict")),
    "thop": profiled,
    "DDP of thop": chained(profiled, prefixed("module.")),
    "thop of DDP, compiled, in a dict": chained(
        prefixed("module."), profiled, prefixed("_orig_mod."), under("model")
    ),
    "Lightning": lightning,
    "Lightning of compiled": chained(prefixed("_orig_mod."), lightning),
    "Adam": optimised,
    "list": lambda state: [state, {"epoch": 3}],
    "without counters": lambda state: {
        f"module._orig_mod.{name}": value for name, value in state.items() if "num_batches" not in name
    },
    "one object twice": lambda state: {"state_dict": state, "best": state},
    "one network twice": lambda state: {"best": dict(state), "last": dict(state)},
    "epoch among the names": lambda state: state | {"epoch": 3, "args": argparse.Namespace()},
}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return alive(build_model("resnet8", 10))


def require_same(path: Path, network: nn.Module, arch: str = "resnet8") -> None:
    weights = load_weights(path)
    assert count_classes(weights, arch) == 10
    read = build_filled(weights, arch=arch, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(read(x), network(x))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_wrapped_network_computes_what_it_did(
    tmp_path: Path, network: nn.Module, wrapping: str, legacy: bool
) -> None:
    held = WRAPPINGS[wrapping](network.state_dict())
    torch.save(held, tmp_path / "t.pt", _use_new_zipfile_serialization=not legacy)
    require_same(tmp_path / "t.pt", network)


@pytest.mark.parametrize("wrapping", [name for name in WRAPPINGS if "." in name or name in ("thop", "AveragedModel")])
def test_safetensors_are_unwrapped_alike(tmp_path: Path, network: nn.Module, wrapping: str) -> None:
    held = WRAPPINGS[wrapping](network.state_dict())
    safetensors.torch.save_file(held, tmp_path / "t.safetensors", {"format": "pt"})
    require_same(tmp_path / "t.safetensors", network)


def test_what_torch_itself_writes(tmp_path: Path, network: nn.Module) -> None:
    average = AveragedModel(torch.compile(nn.DataParallel(network)), use_buffers=True)
    average.update_parameters(average.module)
    torch.save(average.state_dict(), tmp_path / "t.pt")
    require_same(tmp_path / "t.pt", network)


def other(network: nn.Module) -> State:
    return {name: value + 1 for name, value in network.state_dict().items()}


MEANT: dict[str, Callable[[State, State], Any]] = {
    "state_dict_ema": lambda state, more: {"state_dict_ema": more, "state_dict": state},
    "model_ema": lambda state, more: {"model_ema": averaged(more), "model": state},
    "teacher.": lambda state, more: prefixed("teacher.")(more) | prefixed("model.")(state),
    "params_ema": lambda state, more: {"params": state, "params_ema": more},
    "ema": lambda state, more: {"state": state, "ema": more},
    "ema_model.": lambda state, more: prefixed("online_model.")(state) | prefixed("ema_model.")(more),
    "best": lambda state, more: {"best": {"state_dict": more}, "net": state},
}


@pytest.mark.parametrize("case", MEANT)
def test_of_several_networks_one_is_meant_and_said(
    tmp_path: Path, network: nn.Module, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """If the names show which of two networks to read, this network is read, and a note names the network."""
    torch.save(MEANT[case](network.state_dict(), other(network)), tmp_path / "t.pt")
    load._note_once.cache_clear()
    require_same(tmp_path / "t.pt", network)
    (said,) = capfd.readouterr().err.splitlines()
    assert (
        "t.pt: contains 2 networks of the architecture resnet8, with the keys " in said
        and case.strip(".") in said
        and "; to use another" in said
    )


TIED: dict[str, Callable[[State, State], Any]] = {
    "student and teacher": lambda state, more: {"student": state, "teacher": more},
    "encoder_q and encoder_k": lambda state, more: prefixed("encoder_q.")(state) | prefixed("encoder_k.")(more),
    "teacher and student.model": lambda state, more: {"student": {"model": state}, "teacher": more},
}


@pytest.mark.parametrize("case", TIED)
def test_of_several_networks_none_is_guessed(tmp_path: Path, network: nn.Module, case: str) -> None:
    """If the names do not show which of two networks to read, the file is refused."""
    torch.save(TIED[case](network.state_dict(), other(network)), tmp_path / "t.pt")
    one, two = case.split(" and ")
    found = rf"2 networks of the architecture resnet8, with the keys ({one}, {two}|{two}, {one}), and it is not clear"
    with pytest.raises(DistillError, match=rf"{found} which network to use; save the state dict of one network"):
        build_filled(load_weights(tmp_path / "t.pt"), arch="resnet8", num_classes=10)


def test_shapes_tell_two_networks_apart(tmp_path: Path, network: nn.Module) -> None:
    """If a file contains two networks, the network with the right shapes is read."""
    more = build_model("resnet8", 100).state_dict()
    torch.save({"teacher": more, "student": network.state_dict()}, tmp_path / "t.pt")
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        read = build_filled(load_weights(tmp_path / "t.pt"), arch="resnet8", num_classes=10).eval()
        assert torch.equal(read(x), network(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"scale": torch.ones(())}, "scale is unknown;"),
        (lambda state: prefixed("model.")(state | {"scale": torch.ones(1)}), "scale is unknown;"),
        (
            lambda state: state | {"layer4.0.conv1.weight": torch.ones(3, 3)},
            r"layer4\.0\.conv1\.weight .*is unknown",
        ),
        (
            lambda state: prefixed("net.")({k: v for k, v in state.items() if k != "bn1.bias"}),
            r"bn1\.bias is missing",
        ),
        (
            lambda state: {"optimizer": {"momentum": torch.ones(3)}},
            ".* is missing, the parameter momentum is unknown",
        ),
    ],
)
def test_other_networks_are_refused_as_before(tmp_path: Path, network: nn.Module, change: Wrap, said: str) -> None:
    torch.save(change(network.state_dict()), tmp_path / "t.pt")
    with pytest.raises(DistillError, match=rf"is not a resnet8: the parameter {said}.*save only the state dict"):
        build_filled(load_weights(tmp_path / "t.pt"), arch="resnet8", num_classes=10)


@pytest.mark.parametrize("wrap", [prefixed("module._orig_mod."), lightning])
def test_a_wrapped_variant_is_named(tmp_path: Path, wrap: Wrap) -> None:
    torch.save(wrap(build_model("resnet8-b", 10).state_dict()), tmp_path / "t.pt")
    with pytest.raises(DistillError, match="contains a resnet8-b, but arch is resnet8"):
        build_filled(load_weights(tmp_path / "t.pt"), arch="resnet8", num_classes=10)


def test_convert_and_eval(tmp_path: Path, network: nn.Module, run_distill: Program) -> None:
    torch.save(lightning(network.state_dict()), tmp_path / "t.ckpt")
    options = ["--arch", "resnet8", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.2", "--out"]
    result = run_distill("convert", tmp_path / "t.ckpt", *options, tmp_path / "t.safetensors")
    assert result.status == 0, result.err
    require_same(tmp_path / "t.safetensors", network)
    torch.save(TIED["student and teacher"](network.state_dict(), other(network)), tmp_path / "two.pt")
    assert_one_line(
        run_distill("convert", tmp_path / "two.pt", *options, tmp_path / "x.safetensors"), "student, teacher"
    )
