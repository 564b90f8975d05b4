"""Hostile weight files: code, bombs, tensors of wrong sizes, values that are not finite."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill.weights.files import load_weights
from tests.hostile.archives import ARCHIVES, zipped
from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse

PT = ("eval-pt", "teach-pt", "convert")
ST = ("eval", "train", "label")
MEGA = 1 << 20
OTHER_NETWORK = "unknown network|but arch is|at most 1202 layers"


class _Code:
    def __init__(self, protocol: Any) -> None:
        self._call = protocol

    def __reduce__(self) -> Any:
        return self._call


def _state(world: Path) -> dict[str, torch.Tensor]:
    return load_weights(world / "teacher.safetensors").content


def saved(change: Callable[[dict[str, Any]], Any], legacy: bool = False) -> Make:
    """Change a good state dict, and write the result with ``torch.save``."""

    def make(world: Path) -> None:
        torch.save(change(_state(world)), world / "weights.pt", _use_new_zipfile_serialization=not legacy)

    return make


def _bytes(data: Callable[[], bytes]) -> Make:
    return lambda world: _write(world / "weights.pt", data())


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _expanded(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"linear.weight": torch.zeros(1).expand(10**6, 10**6)}


def _with_attribute(**attributes: Any) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.zeros(3))
    vars(parameter).update(attributes)
    return parameter


def _many_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict with 3,000 names for one tensor of 8 MB. A copy for each name would need 24 GB."""
    tensor = torch.zeros(2_000_000)
    return state | {f"t{number}": tensor for number in range(3000)}


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n(S'touch hacked'\ntR.".encode()


def _wide_rebuild(world: Path) -> None:
    """Change a file so that a tensor with a small storage declares more than 10^18 elements."""
    zipped(lambda name, data: data.replace(b"K\x04K\x40\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"))(world)


def _safetensors(header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> Make:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return lambda world: _write(world / "teacher.safetensors", struct.pack("<Q", size % 2**64) + text + body)


def _in_header(change: Callable[[dict[str, Any]], Any]) -> Make:
    """Change the header of the good teacher's file."""

    def make(world: Path) -> None:
        path = world / "teacher.safetensors"
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return make


def _meta(**values: str) -> Make:
    return _in_header(lambda header: header["__metadata__"].update(values))


def _filled(value: float) -> Make:
    def make(world: Path) -> None:
        import safetensors.torch

        path = world / "teacher.safetensors"
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        state = _state(world)
        state["linear.bias"] = torch.full_like(state["linear.bias"], value)
        path.write_bytes(safetensors.torch.save(state, metadata))

    return make


def _entry(dtype: str, shape: list[int], offsets: list[int]) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def _wide(world: Path) -> None:
    """Add a tensor of 15 GB to the good tensors. The file is sparse on disk."""
    path = world / "teacher.safetensors"
    length = path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")
    entry = {"dtype": "F32", "shape": [15 << 28], "data_offsets": [length, length + (15 << 30)]}
    _in_header(lambda header: header.update(x=entry))(world)
    os.truncate(path, path.stat().st_size + (15 << 30))


def _large(name: str, length: int) -> Make:
    return lambda world: sparse(world / name, length)


def _pipe(name: str) -> Make:
    def make(world: Path) -> None:
        (world / name).unlink()
        os.mkfifo(world / name)

    return make


def _device(name: str) -> Make:
    def make(world: Path) -> None:
        (world / name).unlink()
        (world / name).symlink_to("/dev/zero")

    return make


def _opcodes(data: bytes) -> Make:
    return _bytes(lambda: data)


CODE = {
    "os.system": ("os", "system"),
    "posix.system": ("posix", "system"),
    "builtins.eval": ("builtins", "eval"),
    "subprocess.Popen": ("subprocess", "Popen"),
    "torch.load": ("torch", "load"),
    "torch.hub": ("torch.hub", "load"),
    "numpy.load": ("numpy", "load"),
}
FILES: dict[str, tuple[Make, str]] = {
    **ARCHIVES,
    **{f"pickle that calls {name}": (_opcodes(_global(*of)), "") for name, of in CODE.items()},
    "pickle in a zip that calls a command": (
        saved(lambda s: s | {"x": _Code((os.system, ("touch hacked",)))}),
        "might run code",
    ),
    "pickle of the old format that calls a command": (
        saved(lambda s: s | {"x": _Code((os.system, ("touch hacked",)))}, legacy=True),
        "might run code",
    ),
    "whole model": (saved(lambda s: torch.nn.Linear(2, 2)), "might run code"),
    "tensor of 10^12 elements in 4 bytes": (saved(_expanded), "linear.weight is missing"),
    "tensors beyond their storage": (_wide_rebuild, "weights.pt"),
    "sparse tensor": (
        saved(lambda s: s | {"linear.weight": torch.sparse_coo_tensor(size=(10**6, 10**6))}),
        "linear.weight is missing",
    ),
    "tensor on no device": (
        saved(lambda s: s | {"linear.weight": torch.zeros(10**6, 10**6, device="meta")}),
        "linear.weight is missing",
    ),
    "complex tensor": (saved(lambda s: s | {"linear.weight": s["linear.weight"] * 1j}), "linear.weight"),
    "tensor with an attribute": (saved(lambda s: s | {"x": _with_attribute(numel=5)}), "x is unknown"),
    "3,000 names for one tensor": (saved(_many_names), "is unknown"),
    "numbers beyond float32": (saved(lambda s: s | {"linear.bias": s["linear.bias"].double() + 1e300}), "finite"),
    "text for a tensor": (saved(lambda s: s | {"linear.weight": "x"}), "linear.weight is missing"),
    "list for a state dict": (saved(lambda s: list(s.values())), "no state dict"),
    "nested 5,000 dicts": (_opcodes(b"\x80\x02" + b"}" * 5000 + b"."), "weights.pt"),
    "pickle that asks for 2^31 bytes": (_opcodes(b"\x80\x02B\xff\xff\xff\x7f."), "weights.pt"),
    "pickle that asks for 2^62 bytes": (_opcodes(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"."), "weights.pt"),
    "pickle that doubles a list 60 times": (
        _opcodes(b"\x80\x02]q\x00" + b"".join(b"(h\x00h\x00lq\x00" for _ in range(60)) + b"."),
        "weights.pt",
    ),
    "pickle of a memo of 2^31": (_opcodes(b"\x80\x02Nr\xff\xff\xff\x7f."), "weights.pt"),
    "file of 1 TB": (_large("weights.pt", 1 << 40), "weights.pt"),
    "pipe": (_pipe("weights.pt"), "weights.pt"),
    "device": (_device("weights.pt"), "weights.pt"),
    "no bytes": (_opcodes(b""), "weights.pt"),
    "not a number": (saved(lambda s: s | {"linear.bias": s["linear.bias"] * float("nan")}), "finite"),
}
TENSORS: dict[str, tuple[Make, str]] = {
    "header of 2^63": (_safetensors(b"{}", length=2**63), "teacher.safetensors"),
    "header of 2^64 - 1": (_safetensors(b"{}", length=-1), "teacher.safetensors"),
    "header of 90 MB": (_safetensors(b"{" + b" " * (90 << 20) + b"}"), "teacher.safetensors"),
    "header nested 100,000 deep": (_safetensors(b"[" * 100_000), "teacher.safetensors"),
    "header with 300,000 tensors": (
        _safetensors({f"t{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(300_000)}),
        "teacher.safetensors",
    ),
    "tensor longer than the file": (
        _safetensors(_entry("F32", [10**9], [0, 4 * 10**9]), bytes(8)),
        "teacher.safetensors",
    ),
    "tensor of 2^64 elements": (_safetensors(_entry("F32", [2**32, 2**32], [0, 8]), bytes(8)), "teacher.safetensors"),
    "tensor of -1 elements": (_safetensors(_entry("F32", [-1], [0, 4]), bytes(4)), "teacher.safetensors"),
    "tensor that ends before it begins": (_safetensors(_entry("F32", [1], [4, 0]), bytes(4)), "teacher.safetensors"),
    "tensors that overlap": (
        _safetensors(
            _entry("F32", [2], [0, 8]) | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)
        ),
        "teacher.safetensors",
    ),
    "tensor of another kind": (_safetensors(_entry("PICKLE", [1], [0, 4]), bytes(4)), "teacher.safetensors"),
    "tensor named twice": (
        _safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "teacher.safetensors",
    ),
    "bytes behind the last tensor": (
        lambda world: _write(
            world / "teacher.safetensors", (world / "teacher.safetensors").read_bytes() + bytes(999)
        ),
        "teacher.safetensors",
    ),
    "pickle by this name": (
        lambda world: _write(world / "teacher.safetensors", _global("os", "system")),
        "teacher.safetensors",
    ),
    "file of 1 TB": (_large("teacher.safetensors", 1 << 40), "teacher.safetensors"),
    "pipe": (_pipe("teacher.safetensors"), "teacher.safetensors"),
    "device": (_device("teacher.safetensors"), "teacher.safetensors"),
    "not a number": (_filled(float("nan")), "finite"),
    "infinite": (_filled(float("inf")), "finite"),
    "mean that is no number": (_meta(mean="nan,nan,nan"), "teacher.safetensors"),
    "deviation of 0": (_meta(std="0,0,0"), "teacher.safetensors"),
    "mean of 100,000 numbers": (_meta(mean=",".join("0" * 100_000)), "teacher.safetensors"),
    "10^9 classes": (_meta(num_classes="1000000000"), "num_classes"),
    "99,999 classes": (_meta(num_classes="99999"), "teacher.safetensors"),
    "classes of 10,000 digits": (_meta(num_classes="9" * 10_000), "teacher.safetensors"),
    "network called by a command": (_meta(arch="__import__('os').system('touch hacked')"), OTHER_NETWORK),
    "network called by terminal escapes": (_meta(arch="\x1b[2J\x1b]0;x\x07"), OTHER_NETWORK),
    "network of 60,002 layers": (_meta(arch="resnet60002"), OTHER_NETWORK),
    "network of 20 GB": (_meta(arch="wrn-1198-20"), "is not a wrn-1198-20|but arch is"),
    "tensor of 15 GB": (_wide, "x is unknown"),
    "network as wide as 10^9": (_meta(arch="wrn-40-1000000000"), OTHER_NETWORK),
}


CASES = (
    *(Case(name=f"weights: {name}", make=make, entrances=PT, said=said) for name, (make, said) in FILES.items()),
    *(
        Case(name=f"safetensors: {name}", make=make, entrances=ST, said=said)
        for name, (make, said) in TENSORS.items()
    ),
)
