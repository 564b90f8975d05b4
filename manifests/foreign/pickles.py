"""Unpickle arrays, as CIFAR's Python files hold them. No code of a file runs, and none of NumPy's.

After https://docs.python.org/3/library/pickle.html#restricting-globals.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_OPERATIONS = 1_000_000  # CIFAR-100's training images take 300,000, one for each label and file name
_MAX_SIDE = 1 << 31
_ARRAY_NAMES = frozenset({"_reconstruct", "_frombuffer", "ndarray", "dtype"})


def unpickle(data: bytes) -> Any:
    """Return the value in a pickle: plain Python values, and arrays for ``to_array``."""
    for count, (_, argument, _) in enumerate(pickletools.genops(data)):
        if count > MAX_OPERATIONS or (isinstance(argument, int) and abs(argument) >> 32):
            raise ValueError(f"more than {MAX_OPERATIONS} operations, or a number of more than 32 bits")
    return _Unpickler(data).load()


def to_array(value: Any) -> npt.NDArray[Any]:
    """Return an unpickled array or flat list of integers as an array: uint8, or signed if an item has more bytes."""
    if isinstance(value, list) and all(type(item) is int for item in value):
        return np.array(value, dtype=np.int64)
    match value.parts if isinstance(value, _Array) else None:
        case (_, tuple() as shape, _, _, bytes() | bytearray() | str() as data):  # version, shape, dtype, order, data
            pass
        case (bytes() | bytearray() as data, _, tuple() as shape, _):  # data, dtype, shape, order
            pass
        case _:
            raise ValueError("pixels or labels are neither an array nor a list of integers")
    if len(shape) > 2 or not all(type(side) is int and 0 <= side <= _MAX_SIDE for side in shape):
        raise ValueError("an array whose shape is not that of CIFAR's")
    raw = data.encode("latin1") if isinstance(data, str) else data
    num_items = math.prod(shape)
    kind = {1: "u1", 2: "<i2", 4: "<i4", 8: "<i8"}[len(raw) // num_items if num_items else 0]
    return np.frombuffer(raw, dtype=kind).reshape(shape)


class _Array:
    """Keeps the parts of a NumPy array or dtype. NumPy itself would trust a file's shapes, types and addresses."""

    def __init__(self, *parts: object) -> None:
        self.parts: Any = parts

    def __setstate__(self, state: object) -> None:
        self.parts = state


class _Unpickler(pickle._Unpickler):  # the one in C allocates as much memory as an index in the file says
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._bytes_left = len(data)

    def find_class(self, module: str, name: str) -> Any:
        """Return what replaces a part of an array."""
        if module.partition(".")[0] == "numpy" and name in _ARRAY_NAMES:
            return _Array
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def _encode(self, text: str, encoding: str) -> bytes:
        """Return a text as bytes, as old protocols write them: in all at most as many as the file has."""
        self._bytes_left -= len(text)
        if self._bytes_left < 0:
            raise pickle.UnpicklingError("it asks for more bytes than it holds")
        return text.encode("latin1")
