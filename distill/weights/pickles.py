"""What ``torch.save`` pickles, read as plain values and claims of tensors: no code of torch, or of a file, is run."""

import dataclasses
import pickle
import re
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar

import torch

from distill.errors import DamagedError

MAX_PICKLE_BYTES = 5 << 20
"""Of names, shapes and plain values, of which each byte may ask for 70: a checkpoint of ResNet-1202 has 3 MB."""

MAX_KEY_LETTERS, MAX_KEY = 1000, 1 << 20


class _Sealed:
    """What no pickle may give attributes to: they would stand before methods."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("attributes of a tensor or a function")


@dataclasses.dataclass(frozen=True)
class Storage(_Sealed):
    """A run of ``numel`` numbers somewhere in the file, by its name there."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self.numel * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Claim(_Sealed):
    """A tensor as the file describes it; ``offset`` and ``stride`` in elements of a storage yet to be looked at."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _StorageType(_Sealed):
    dtype: torch.dtype


@dataclasses.dataclass(frozen=True)
class _Maker(_Sealed):
    make: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)


class _Named(dict[Any, Any]):
    """For an ``OrderedDict``. State dicts give theirs an attribute, versions of modules, which is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def _named(pairs: Any = ()) -> _Named:
    pairs = [(key, value) for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)]
    _require_keys(key for key, _ in pairs)
    return _Named(pairs)


def _claim(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any, dtype: torch.dtype | None = None) -> Claim:
    """What ``torch._utils._rebuild_tensor_v2`` is called for; ``more``: a gradient wished, no hooks, no metadata."""
    numbers = (offset, *shape, *stride)
    whole = all(type(number) is int and 0 <= number < 1 << 60 for number in numbers)
    if not isinstance(storage, Storage) or not whole or len(shape) != len(stride) or any(more[1:]):
        raise pickle.UnpicklingError("a tensor that is none")
    return Claim(storage, dtype or storage.dtype, offset, tuple(shape), tuple(stride))


def _claim_untyped(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> Claim:
    """What ``_rebuild_tensor_v3`` is called for, with its dtype behind the hooks."""
    grad, hooks, dtype, *metadata = more
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a dtype that is none")
    return _claim(storage, offset, shape, stride, grad, hooks, *metadata, dtype=dtype)


def _parameter(data: Any, grad: Any, hooks: Any) -> Any:
    return data


def _text_as_bytes(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str):
        raise pickle.UnpicklingError("a text that is none")
    return text.encode("latin-1")


def _device(*parts: Any) -> str:
    if not all(isinstance(part, str | int) for part in parts):
        raise pickle.UnpicklingError("a device that is none")
    return ":".join(map(str, parts))


class _Passed:
    """In place of a value that is no tensor, and of all that the file says of it."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_BUILTINS = ("set", "frozenset", "list", "dict", "int")
_PASSED = (
    *(
        "argparse.Namespace",
        "types.SimpleNamespace",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib.PurePosixPath",
    ),
    *(f"{builtins}.{name}" for builtins in ("builtins", "__builtin__") for name in _BUILTINS),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
)
"""What stands beside networks in usual checkpoints: arguments, paths, figures."""
_PASSED_DICTS = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)

_DTYPES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
    **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
}
_NEWER = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64)
"""Without a storage type of their own. Of the others that torch has, it cannot even make copies everywhere."""
_KNOWN: dict[str, Any] = {
    **{
        f"{place}.{name}Storage": _StorageType(of)
        for name, of in _DTYPES.items()
        for place in ("torch", "torch.cuda")
    },
    **{str(dtype): dtype for dtype in (*_DTYPES.values(), *_NEWER)},
    "torch.storage.UntypedStorage": _StorageType(torch.uint8),
    "torch._utils._rebuild_tensor": _Maker(_claim),
    "torch._utils._rebuild_tensor_v2": _Maker(_claim),
    "torch._utils._rebuild_tensor_v3": _Maker(_claim_untyped),
    "torch._utils._rebuild_parameter": _Maker(_parameter),
    "torch.Size": _Maker(tuple),
    "torch.device": _Maker(_device),
    "collections.OrderedDict": _Maker(_named),
    "collections.Counter": _Maker(_named),
    "_codecs.encode": _Maker(_text_as_bytes),
    **{name: _Maker(_Passed) for name in _PASSED},
    **{name: _Maker(lambda *arguments: _Named()) for name in _PASSED_DICTS},
}

_OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINUNICODE),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.APPEND, pickle.APPENDS),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.GLOBAL, pickle.REDUCE, pickle.NEWOBJ, pickle.BUILD, pickle.BINPERSID),
)
"""What pickles of ``torch.save`` are made of; another is a KeyError."""


def _require_keys(keys: Iterable[Any]) -> None:
    """Texts, whose hashes are salted, and small numbers, none of which have the same."""
    for key in keys:
        named = key is None or (isinstance(key, str) and len(key) <= MAX_KEY_LETTERS)
        if not named and not (isinstance(key, int) and abs(key) <= MAX_KEY):
            raise pickle.UnpicklingError("a key that is neither a short text nor a small number")


def _checking(opcode: bytes, keys: slice) -> Callable[[Any], None]:
    """What puts items into a dict, its keys in this part of the stack, once these are looked at."""
    put = pickle._Unpickler.dispatch[opcode[0]]

    def load(unpickler: Any) -> None:
        _require_keys(unpickler.stack[keys])
        put(unpickler)

    return load


def _new_object(unpickler: Any) -> None:
    """As a call, for no class is known here."""
    arguments = unpickler.stack.pop()
    maker = unpickler.stack.pop()
    if not isinstance(maker, _Maker):
        raise pickle.UnpicklingError("an object of no class")
    unpickler.append(maker(*arguments))


class Unpickler(pickle._Unpickler):  # the one in C takes as much memory as a memo's number says
    """Reads pickles one after another; ``storages`` are those that were named, by key."""

    dispatch: ClassVar[dict[int, Any]] = {
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES},
        pickle.NEWOBJ[0]: _new_object,
        pickle.SETITEM[0]: _checking(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _checking(pickle.SETITEMS, slice(None, None, 2)),
    }

    def __init__(self, stream: IO[bytes], where: str) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, Storage] = {}
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of what may be asked for.

        Raises:
            DamagedError: it is anything else.
        """
        asked = f"{module}.{name}"
        if asked not in _KNOWN:
            raise DamagedError(
                f"{self._where}: asks for {re.sub(r'[^0-9A-Za-z_.]', '?', asked)[:100]}, which is no tensor and "
                "might run code, so it is not read; where you trust it, save its state dict alone: "
                "torch.save(model.state_dict(), FILE)"
            )
        return _KNOWN[asked]

    def persistent_load(self, pid: Any) -> Storage:
        """A storage: ``("storage", type, key, device, numel)``, and None behind that in the format before 1.6."""
        word, kind, key, _, numel, *view = pid
        if word != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str) or any(view):
            raise pickle.UnpicklingError("a storage that is none")
        if type(numel) is not int or not 0 <= numel < 1 << 60:
            raise pickle.UnpicklingError("a storage of no length")
        storage = Storage(key, kind.dtype, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError("two storages of one name")
        return storage
