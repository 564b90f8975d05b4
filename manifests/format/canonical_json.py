"""Canonical JSON (RFC 8785, the JSON Canonicalization Scheme) and strict parsing.

Two implementations that agree on a value agree on these bytes, so their SHA-256 is an identity.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from manifests.errors import PatchSetError

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer every JSON implementation keeps exactly (RFC 7493, section 2.2)."""

MAX_VALUES = 2_000_000
MAX_DEPTH = 64
MAX_LETTERS = 1_000_000
"""What a JSON text from a stranger may hold: values in all, one inside another, and letters in a string or number."""
_CHUNK = 4096


def canonical_json(value: Any) -> bytes:
    """UTF-8 bytes of ``value`` in the JSON Canonicalization Scheme.

    ``value`` is built of dict (str keys), list, tuple, str, int, float, bool and None.

    Raises:
        PatchSetError: a number printed as an integer beyond ±(2**53 - 1) or is not finite, a lone surrogate,
            or a type JSON does not have.
    """
    return b"".join(canonical_chunks(value))


def canonical_chunks(value: Any) -> Iterator[bytes]:
    """As ``canonical_json``, some thousand tokens at a time: those of a large manifest fill hundreds of megabytes.

    Raises:
        PatchSetError: as there.
    """
    parts = iter(_parts(value))
    try:
        while chunk := "".join(itertools.islice(parts, _CHUNK)):
            yield chunk.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PatchSetError(f"canonical JSON: a string holds a lone surrogate: {error.reason}") from error


def _parts(value: Any) -> Iterable[str]:
    match value:
        case None:
            yield "null"
        case bool():
            yield "true" if value else "false"
        case int():
            yield _integer(value)
        case float():
            yield _number(value)
        case str():
            yield json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            for position, item in enumerate(value):
                yield "," if position else "["
                yield from _parts(item)
            yield "]" if value else "[]"
        case dict():
            yield from _members(value)
        case _:
            raise PatchSetError(f"canonical JSON: JSON has no type for {type(value).__name__}")


def _members(value: dict[Any, Any]) -> Iterable[str]:
    for key in value:
        if not isinstance(key, str):
            raise PatchSetError(f"canonical JSON: the key {key!r} is not a string")
    # RFC 8785 sorts by UTF-16 code units, which differs from code points beyond the basic plane.
    ordered = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    for position, key in enumerate(ordered):
        yield "," if position else "{"
        yield json.dumps(key, ensure_ascii=False) + ":"
        yield from _parts(value[key])
    yield "}" if value else "{}"


def _integer(value: int) -> str:
    if abs(value) > MAX_SAFE_INTEGER:
        raise PatchSetError(f"canonical JSON: {value} is beyond ±(2**53 - 1); use a smaller number")
    return str(value)


def _number(value: float) -> str:
    """ECMAScript's Number::toString, which RFC 8785 prescribes."""
    if not math.isfinite(value):
        raise PatchSetError(f"canonical JSON: {value} is not a finite number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = int(exponent or 0) + len(whole) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return _integer(int(value))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    head = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{head}e{'+' if power > 0 else '-'}{abs(power)}"


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON text, refusing what parsers disagree about.

    Raises:
        PatchSetError: not UTF-8, not JSON, a duplicate key, NaN or Infinity, an integer beyond ±(2**53 - 1), a
            number too large for a float, a lone surrogate; more values, deeper ones or longer texts than ``MAX_…``.
    """
    # Counted in the bytes, before a value is made of them: each stands before a comma, or is the first in brackets.
    if (values := sum(map(data.count, (b",", b"[", b"{")))) > MAX_VALUES:
        raise PatchSetError(f"{where}: about {values} values, expected at most {MAX_VALUES}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
        )
        _require_modest(value)
        return value
    except UnicodeDecodeError as error:
        raise PatchSetError(f"{where}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise PatchSetError(f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise PatchSetError(f"{where}: nested too deeply to be a manifest") from error
    except PatchSetError as error:
        raise PatchSetError(f"{where}: {error}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise PatchSetError(f"{where}: {error}") from error


def _require_modest(value: Any) -> None:
    """Refuse values that are nested more deeply than anybody needs, and texts longer than that."""
    level = [value]
    for _ in range(MAX_DEPTH):
        texts = [item for item in level if isinstance(item, str)]
        texts += [key for item in level if isinstance(item, dict) for key in item]
        for text in texts:
            if len(text) > MAX_LETTERS:
                raise PatchSetError(f"a text has {len(text)} letters, expected at most {MAX_LETTERS}")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise PatchSetError(f"the text {text[:40]!a} holds a lone surrogate")
        level = [inner for item in level if isinstance(item, dict | list) for inner in _inside(item)]
        if not level:
            return
    raise PatchSetError(f"nested more than {MAX_DEPTH} deep")


def measure(value: Any) -> tuple[int, int]:
    """How many values a JSON value is made of, and how many letters its texts have, keys among them."""
    values = letters = 0
    level = [value]
    while level:
        values += len(level)
        letters += sum(len(item) for item in level if isinstance(item, str))
        letters += sum(len(key) for item in level if isinstance(item, dict) for key in item)
        level = [inner for item in level if isinstance(item, dict | list) for inner in _inside(item)]
    return values, letters


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise PatchSetError(f"the key {key!r} appears twice in one object")
        value[key] = item
    return value


def _parse_int(text: str) -> int:
    value = int(text)
    if abs(value) > MAX_SAFE_INTEGER:
        raise PatchSetError(f"the integer {text[:40]} is beyond ±(2**53 - 1)")
    return value


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise PatchSetError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(name: str) -> Any:
    raise PatchSetError(f"{name} is not JSON")
