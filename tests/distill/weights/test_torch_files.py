"""Files of torch.save, read as torch reads them: both formats, every kind of number, views; and what is refused."""

import pickle
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.errors import DamagedError
from distill.weights.archive import require_sums
from distill.weights.load import put_state
from distill.weights.torch_files import are_finite, load_tensors, owned

KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16),
    *(torch.int8, torch.uint8, torch.bool),
)
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def saved(path: Path, value: Any, legacy: bool) -> Any:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return load_tensors(path)


@FORMATS
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_number(tmp_path: Path, kind: torch.dtype, legacy: bool) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(kind)
    held = owned(saved(tmp_path / "t.pt", {"a": tensor, "none": tensor[:0], "one": tensor[1, 1]}, legacy)["a"])
    assert held.dtype == kind and torch.equal(held, tensor)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.uint16], ids=str)
def test_kinds_that_are_newer_than_their_storages(tmp_path: Path, kind: torch.dtype) -> None:
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
    assert all(torch.equal(owned(held["net"][name]), tensor) for name, tensor in value["net"].items())
    kept, own = held["optimizer"]["state"], value["optimizer"]["state"]
    assert all(torch.equal(owned(kept[i][key]), own[i][key]) for i in own for key in own[i])
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
    assert all(torch.equal(owned(held[name]), tensor) for name, tensor in {"b": whole, "c": whole[1:3]}.items())
    assert torch.equal(owned(held["d"]), whole.T) and torch.equal(owned(held["e"]), whole[0])


def test_a_file_is_not_changed_by_what_is_read_of_it(tmp_path: Path) -> None:
    held = saved(tmp_path / "t.pt", [torch.zeros(5)], legacy=False)[0]
    before = (tmp_path / "t.pt").read_bytes()
    held.fill_(1)
    assert (tmp_path / "t.pt").read_bytes() == before


def test_a_bit_that_fell_over(tmp_path: Path) -> None:
    saved(tmp_path / "t.pt", [torch.zeros(500)], legacy=False)
    require_sums(tmp_path / "t.pt")
    data = bytearray((tmp_path / "t.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "t.pt").write_bytes(data)
    with pytest.raises(DamagedError, match=r"t\.pt: damaged: 't/data/0' is not what was written"):
        require_sums(tmp_path / "t.pt")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2^31, which the pickle module in C makes room for
        b"\x80\x02}(K\x01\x85K\x01u.",  # a tuple as a key: those can be made to have one hash
        b"\x80\x02}\x8a\x08" + b"\xff" * 7 + b"\x7f" + b"K\x01s}\x8a\x09" + b"\xff" * 8 + b"\x01K\x01s.",
        b"\x80\x02ccollections\nOrderedDict\n)R}ccollections\nOrderedDict\n}X\x01\x00\x00\x00aNsb.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02I1\n.",
    ],
)
def test_pickles_of_other_kinds(tmp_path: Path, opcodes: bytes) -> None:
    (tmp_path / "t.pt").write_bytes(
        b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        + opcodes
        + pickle.dumps([], 2)
    )
    if opcodes.startswith(b"\x80\x02Nr"):  # a memo is a dict here, so its number costs nothing
        assert load_tensors(tmp_path / "t.pt") is None
        return
    with pytest.raises(DamagedError, match=r"t\.pt: damaged, or no PyTorch file of tensors alone"):
        load_tensors(tmp_path / "t.pt")


def test_numbers_are_looked_at_in_blocks() -> None:
    tensor = torch.zeros((1 << 20) + 1)
    assert are_finite(tensor) and are_finite(torch.tensor([1])) and are_finite(Tensor())
    tensor[-1] = float("inf")
    assert not are_finite(tensor) and not are_finite(torch.tensor([1e300], dtype=torch.float64))
