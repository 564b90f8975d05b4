"""Pickles of arrays, as CIFAR's Python files are: read without a line of NumPy's, or anybody's, being run."""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_OPERATIONS = 1_000_000
"""CIFAR-100's training images take 300,000, one for each label and file name."""
_MAX_INTEGER = 1 << 32
_MAX_DIMENSIONS = 2
_MAX_SIDE = 1 << 31
_MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


def unpickle(data: bytes) -> Any:
    """The value in a pickle: plain Python, and arrays of which ``numbers`` makes some.

    Raises:
        TORN: it is damaged, asks for anything else, or for more work than an honest file.
    """
    _require_modest(data)
    return _Unpickler(data).load()


def numbers(value: Any) -> npt.NDArray[Any]:
    """An array, or a flat list of whole numbers, of a pickle.

    Raises:
        ValueError: it is neither, or the array's shape is not that of its bytes.
    """
    if isinstance(value, _Array):
        return value.decoded()
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ValueError(f"holds a {type(value).__name__} where an array or a list of whole numbers was expected")
    return np.array(value, dtype=np.int64)


def _require_modest(data: bytes) -> None:
    """Count what a pickle does before it does it: a byte of it may make a list, or room for a billion objects."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if count > MAX_OPERATIONS:
            raise ValueError(f"more than {MAX_OPERATIONS} operations")
        if isinstance(argument, int) and not -_MAX_INTEGER < argument < _MAX_INTEGER:
            raise ValueError("a number of more than 32 bits")
        if operation.name in _MEMO and int(argument or 0) > MAX_OPERATIONS:
            raise ValueError(f"a place {argument} among what it keeps, expected at most {MAX_OPERATIONS}")


class _Array:
    """Stands in for NumPy's array while it is unpickled: shape and bytes are kept, no memory is looked at."""

    def __init__(self, *arguments: object) -> None:
        self.shape: Any = None
        self.data: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:  # version, shape, dtype, order, data
            raise ValueError("an array that is none of NumPy's")
        _, self.shape, _, _, self.data = state

    def decoded(self) -> npt.NDArray[Any]:
        """The array: uint8, or signed integers where an item has more bytes."""
        shape, data = self.shape, self.data
        if not isinstance(data, bytes | bytearray | str):  # of a number, bytes() would make as many zeros
            raise ValueError(f"an array whose bytes are of type {type(data).__name__}")
        whole = isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS
        if not whole or not all(type(side) is int and 0 <= side <= _MAX_SIDE for side in shape):
            raise ValueError("an array of no shape that CIFAR's have")
        raw = data.encode("latin1") if isinstance(data, str) else data
        items = math.prod(shape)
        width = len(raw) // items if items else 0
        kind = {1: "u1", 2: "<i2", 4: "<i4", 8: "<i8"}[width]
        return np.frombuffer(raw, dtype=kind).reshape(shape)


class _Dtype:
    """Stands in for NumPy's dtype."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _from_buffer(data: Any, dtype: object, shape: Any, order: object) -> _Array:
    array = _Array()
    array.shape, array.data = shape, data
    return array


class _Unpickler(pickle.Unpickler):
    """Builds nothing but plain values and stand-ins."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._room = len(data)

    def find_class(self, module: str, name: str) -> Any:
        """Only what an array is made of, and none of it NumPy's own."""
        known: dict[str, Any] = {
            "_reconstruct": _Array,
            "ndarray": _Array,
            "dtype": _Dtype,
            "_frombuffer": _from_buffer,
        }
        if module.split(".", 1)[0] == "numpy" and name in known:
            return known[name]
        if (module, name) == ("_codecs", "encode"):
            return self._latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def _latin1(self, text: str, encoding: str) -> bytes:
        """How the oldest protocol writes bytes: as a text, each once; a pickle may ask for one again without end."""
        self._room -= len(text)
        if self._room < 0:
            raise pickle.UnpicklingError("it asks for more bytes than it holds")
        return text.encode("latin1")
