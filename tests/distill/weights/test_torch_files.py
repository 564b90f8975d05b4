"""Test files of ``torch.save``: both formats, every number type, views, and refused files."""

import argparse
import fractions
import pickle
import types
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.errors import DamagedError
from distill.weights.load import put_state
from distill.weights.torch_files import are_finite, load_torch_file, require_checksums

KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16),
    *(torch.int8, torch.uint8, torch.bool),
)
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def saved(path: Path, value: Any, legacy: bool) -> Any:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return load_torch_file(path)


@FORMATS
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_number(tmp_path: Path, kind: torch.dtype, legacy: bool) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(kind)
    held = saved(tmp_path / "t.pt", {"a": tensor, "none": tensor[:0], "one": tensor[1, 1]}, legacy)["a"]
    assert held.dtype == kind and torch.equal(held, tensor)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.uint16], ids=str)
def test_kinds_that_are_newer_than_their_storages(tmp_path: Path, kind: torch.dtype) -> None:
    """Number types that have no storage class of their own are loaded."""
    held = saved(tmp_path / "t.pt", [torch.ones(3).to(kind)], legacy=False)[0]
    assert held.dtype == kind and held.float().tolist() == [1, 1, 1] and are_finite(held)


@FORMATS
def test_what_checkpoints_hold_beside_tensors(tmp_path: Path, legacy: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])
    value = {
        "net": network.state_dict(),
        "own": OrderedDict(network.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "more": (1, -1, 2**40, 0.5, None, True, "é", b"\xff\x00", torch.Size([2]), torch.float16, [], {}, ()),
    }
    held = saved(tmp_path / "t.pt", value, legacy)
    assert held["net"].keys() == value["net"].keys() and held["own"].keys() == value["own"].keys()
    assert all(torch.equal(held["net"][name], tensor) for name, tensor in value["net"].items())
    kept, own = held["optimizer"]["state"], value["optimizer"]["state"]
    assert all(torch.equal(kept[i][key], own[i][key]) for i in own for key in own[i])
    assert held["optimizer"]["param_groups"] == value["optimizer"]["param_groups"]
    assert held["schedule"]["milestones"] == Counter({3: 2, 5: 1})
    assert held["more"] == value["more"]
    fresh = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    put_state(fresh, held["net"])
    assert torch.equal(fresh[0].weight, network[0].weight)


@FORMATS
def test_views_and_tensors_with_several_names(tmp_path: Path, legacy: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    held = saved(tmp_path / "t.pt", {"a": whole, "b": whole, "c": whole[1:3], "d": whole.T, "e": whole[0]}, legacy)
    assert all(torch.equal(held[name], tensor) for name, tensor in {"b": whole, "c": whole[1:3]}.items())
    assert torch.equal(held["d"], whole.T) and torch.equal(held["e"], whole[0])


def test_a_file_is_not_changed_by_what_is_read_of_it(tmp_path: Path) -> None:
    held = saved(tmp_path / "t.pt", [torch.zeros(5)], legacy=False)[0]
    before = (tmp_path / "t.pt").read_bytes()
    held.fill_(1)
    assert (tmp_path / "t.pt").read_bytes() == before


def test_a_bit_that_fell_over(tmp_path: Path) -> None:
    """A file with one changed bit does not match its checksums."""
    saved(tmp_path / "t.pt", [torch.zeros(500)], legacy=False)
    require_checksums(tmp_path / "t.pt")
    data = bytearray((tmp_path / "t.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "t.pt").write_bytes(data)
    with pytest.raises(DamagedError, match=r"t\.pt: the part 't/data/0' has a wrong checksum"):
        require_checksums(tmp_path / "t.pt")


@pytest.mark.parametrize("opcodes", [b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"\x80\x02I1\n.", b"\x80\x02(", b""])
def test_damaged_pickles(tmp_path: Path, opcodes: bytes) -> None:
    start = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "t.pt").write_bytes(start + opcodes + pickle.dumps([], 2))
    with pytest.raises(DamagedError, match=r"t\.pt: is corrupt, or is not a PyTorch file of tensors"):
        load_torch_file(tmp_path / "t.pt")


@FORMATS
@pytest.mark.parametrize("value", [nn.Linear(2, 2), np.random.default_rng(0), fractions.Fraction(1, 2)], ids=type)
def test_values_that_might_run_code_are_named(tmp_path: Path, value: Any, legacy: bool) -> None:
    name = {"Linear": "torch.nn.modules.linear.Linear", "Fraction": "fractions.Fraction"}.get(
        type(value).__name__, "numpy.random"
    )
    with pytest.raises(
        DamagedError, match=f"contains an object {name}.*, which might run code.*save only the state dict"
    ):
        saved(tmp_path / "t.pt", {"a": torch.ones(2), "x": value}, legacy)


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "t.pt")
    with pytest.raises(DamagedError, match=r"t\.pt: is a TorchScript program, which might run code.*state_dict"):
        load_torch_file(tmp_path / "t.pt")


@FORMATS
def test_values_beside_networks_are_not_read(tmp_path: Path, legacy: bool) -> None:
    """Tensors are loaded from a checkpoint that also contains options and statistics."""
    values = {
        "args": argparse.Namespace(lr=0.1, path=Path("x")),
        "more": types.SimpleNamespace(a=1),
        "acc": np.float32(0.5),
        "array": np.arange(3),
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "log": defaultdict(list, {"loss": [0.1]}),
    }
    held = saved(tmp_path / "t.pt", {"net": {"w": torch.ones(2)}, **values}, legacy)
    assert torch.equal(held["net"]["w"], torch.ones(2)) and held["log"] == {"loss": [0.1]}


def test_infinite_numbers_are_found() -> None:
    tensor = torch.zeros((1 << 20) + 1)
    assert are_finite(tensor) and are_finite(torch.tensor([1])) and are_finite(Tensor())
    tensor[-1] = float("inf")
    assert not are_finite(tensor) and not are_finite(torch.tensor([1e300], dtype=torch.float64))
