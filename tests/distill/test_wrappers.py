"""Checkpoints as training code leaves them: whatever is wrapped around a network, its logits are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from distill.errors import DistillError
from distill.fit import build_filled
from distill.models import build_model
from distill.weights import load_weights
from manifests.terminal import note_once

State = dict[str, Tensor]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(5)
    return build_model("resnet8", 4).eval()


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    note_once.cache_clear()


def prefixed(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {"".join(prefixes) + name: value for name, value in state.items()}


def averaged(state: State) -> State:
    return prefixed("module.")(state) | {"n_averaged": torch.tensor(3)}


def profiled(state: State) -> State:
    counters = {f"{name.rpartition('.')[0]}.{kind}": torch.zeros(1, dtype=torch.float64)
                for name in state for kind in ("total_ops", "total_params")}  # fmt: skip
    return state | counters | {"total_ops": torch.zeros(1), "total_params": torch.zeros(1)}


def inside(state: State) -> State:
    """Blocks that were compiled or parallel on their own."""
    return {name.replace("layer1.", "layer1.module.").replace("layer2.", "_orig_mod.layer2.module."): value
            for name, value in state.items()}  # fmt: skip


def lightning(state: State) -> Any:
    return {
        "epoch": 3, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": prefixed("model.")(state), "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}], "hyper_parameters": {"lr": 0.1},
    }  # fmt: skip


def doubled(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "bare": dict,
    "module": prefixed("module."),
    "_orig_mod": prefixed("_orig_mod."),
    "module._orig_mod": prefixed("module.", "_orig_mod."),
    "_orig_mod.module": prefixed("_orig_mod.", "module."),
    "module twice": prefixed("module.", "module."),
    "any attribute": prefixed("backbone.", "net."),
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "averaged": averaged,
    "averaged, compiled": lambda state: prefixed("_orig_mod.")(averaged(state)),
    "averaged within DDP within Lightning": lambda state: {"state_dict": prefixed("model.module.")(averaged(state))},
    "profiled": profiled,
    "profiled and parallel": lambda state: prefixed("module.")(profiled(state)),
    "inside of names": inside,
    "Lightning": lightning,
    "Lightning with a metric": lambda state: {
        "state_dict": prefixed("model.")(state) | {"criterion.weight": torch.ones(4), "train_acc.tp": torch.zeros(4)}
    },
    "two keys deep": lambda state: {"checkpoint": {"model": prefixed("module.")(state)}, "epoch": 3},
    "an unusual key": lambda state: {"my_resnet": state, "acc": torch.tensor(93.4), "optimizer": {"state": {}}},
    "with numbers beside the tensors": lambda state: state | {"epoch": 3, "arch": "resnet8"},
    "with EMA": lambda state: {"model": state, "model_ema": doubled(state)},
    "timm": lambda state: {"state_dict_ema": doubled(state), "state_dict": state, "arch": "x", "metric": 0.9},
    "student and teacher": lambda state: {"teacher": doubled(state), "student": state},
    "model and teacher in one": lambda state: prefixed("model.")(state) | prefixed("teacher.")(doubled(state)),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_wrapped_network_computes_what_it_did(name: str, suffix: str, network: nn.Module, tmp_path: Path) -> None:
    value = WRAPPED[name]({name: value.clone() for name, value in network.state_dict().items()})
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(value, path)
    elif all(isinstance(item, Tensor) for item in value.values()):
        safetensors.torch.save_file(value, path)
    else:
        pytest.skip("safetensors hold tensors alone")
    ours = build_filled(load_weights(path), arch="resnet8", num_classes=4).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(x), network(x))


def test_torchs_own_wrappers(network: nn.Module, tmp_path: Path) -> None:
    wrapped = nn.DataParallel(AveragedModel(nn.DataParallel(network)))
    torch.save({"ema": wrapped.state_dict()}, tmp_path / "w.pt")
    ours = build_filled(load_weights(tmp_path / "w.pt"), arch="resnet8", num_classes=4).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(x), network(x))


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (WRAPPED["with EMA"], "the network under model is read; it also holds model_ema"),
        (WRAPPED["timm"], "the network under state_dict is read; it also holds state_dict_ema"),
        (WRAPPED["model and teacher in one"], "the network under model. is read"),
        (WRAPPED["Lightning with a metric"], "2 other tensors, such as criterion.weight, are left out"),
    ],
)
def test_a_choice_is_said(
    wrap: Callable[[State], Any], part: str, network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(wrap(network.state_dict()), tmp_path / "w.pt")
    for _ in range(2):
        build_filled(load_weights(tmp_path / "w.pt"), arch="resnet8", num_classes=4)
    assert capsys.readouterr().err.count(part) == 1


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda state: {"first": state, "second": state}, "several networks (first, second)"),
        (lambda state: prefixed("one.")(state) | prefixed("two.")(state), "several networks resnet8: one, two"),
        (lambda state: {"epoch": 3, "acc": torch.tensor(1.0)}, "holds no state dict"),
        (lambda state: state | {"prelu.weight": torch.ones(1)}, "has the unknown prelu.weight; save the state dict"),
        (lambda state: {k: v for k, v in state.items() if k != "conv1.weight"}, "lacks conv1.weight"),
    ],
)
def test_what_is_not_guessed(wrap: Callable[[State], Any], part: str, network: nn.Module, tmp_path: Path) -> None:
    torch.save(wrap(network.state_dict()), tmp_path / "w.pt")
    with pytest.raises(DistillError) as caught:
        build_filled(load_weights(tmp_path / "w.pt"), arch="resnet8", num_classes=4)
    assert part in str(caught.value) and "\n" not in str(caught.value)
