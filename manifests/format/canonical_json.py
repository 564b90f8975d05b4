"""Write canonical JSON (RFC 8785, the JSON Canonicalization Scheme), and parse untrusted JSON strictly.

All implementations write the same bytes for a value, so the SHA-256 of these bytes identifies the value.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import rfc8785

from manifests.errors import PatchSetError, corrupt

MAX_SAFE_INTEGER = 2**53 - 1  # largest integer that every JSON implementation keeps exactly (RFC 7493, section 2.2)

MAX_VALUES = 2_000_000  # values in an untrusted JSON text
MAX_DEPTH = 64  # levels of nesting in an untrusted JSON text
MAX_LETTERS = 1_000_000  # characters in one string or number of an untrusted JSON text


def canonical_json(value: Any) -> bytes:
    """Return canonical JSON in UTF-8. ``value`` consists of dict, list, tuple, str, int, float, bool and None."""
    for items in _levels(value):
        for item in items:
            # RFC 8785 writes these floats as integers, and many parsers round these integers.
            if isinstance(item, float) and MAX_SAFE_INTEGER < abs(item) < 1e21:
                raise PatchSetError(f"canonical JSON: the number {item} is outside ±(2**53 - 1); use a smaller one")
    try:
        return rfc8785.dumps(value)
    except ValueError as error:
        raise PatchSetError(f"canonical JSON: {error}; use a value that JSON allows") from error


def parse_json(data: bytes, where: str) -> Any:
    """Parse a JSON text. Refuse a text that parsers could read differently. ``where`` names the text in errors."""
    # Each value follows a comma or an opening bracket, so this count is an upper bound.
    if (values := sum(map(data.count, (b",", b"[", b"{")))) > MAX_VALUES:
        raise corrupt(where, f"the JSON has about {values} values, expected at most {MAX_VALUES}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
        )
        _require_bounded(value)
        return value
    except UnicodeDecodeError as error:
        raise corrupt(where, f"the byte at position {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise corrupt(where, f"the text is not JSON: {error}") from error
    except RecursionError as error:
        raise corrupt(where, f"the JSON is nested more than {MAX_DEPTH} levels deep") from error
    except PatchSetError as error:
        raise corrupt(where, str(error)) from error


def measure(value: Any) -> tuple[int, int]:
    """Return two counts for a JSON value: values on all levels of nesting, and characters of all strings and keys."""
    values = letters = 0
    for items in _levels(value):
        values += len(items)
        letters += sum(map(len, _texts(items)))
    return values, letters


def _levels(value: Any) -> Iterator[list[Any]]:
    """Yield the values of each level of nesting as a list: first ``[value]``, then the items in it, and so on."""
    items = [value]
    while items:
        yield items
        containers = [item for item in items if isinstance(item, dict | list | tuple)]
        items = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]


def _texts(items: list[Any]) -> Iterator[str]:
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item


def _require_bounded(value: Any) -> None:
    """Refuse nesting beyond ``MAX_DEPTH``, strings longer than ``MAX_LETTERS``, and invalid Unicode."""
    for depth, items in enumerate(_levels(value)):
        if depth == MAX_DEPTH:
            raise PatchSetError(f"the JSON is nested more than {MAX_DEPTH} levels deep")
        for text in _texts(items):
            if len(text) > MAX_LETTERS:
                raise PatchSetError(f"a string has {len(text)} characters, expected at most {MAX_LETTERS}")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise PatchSetError(f"the string {text[:40]!a} is not valid Unicode text")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise PatchSetError(f"the key {key!r} appears twice in one object")
        value[key] = item
    return value


def _parse_int(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_SAFE_INTEGER:  # Python converts no integer of more than 4300 digits
        raise PatchSetError(f"the integer {text[:40]} is outside the range ±(2**53 - 1)")
    return int(text)


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)) or MAX_SAFE_INTEGER < abs(value) < 1e21:  # see ``canonical_json``
        raise PatchSetError(f"the number {text[:40]} is too large to be read exactly")
    return value


def _refuse_constant(name: str) -> Any:
    raise PatchSetError(f"{name} is not allowed in JSON, expected a finite number")
