"""Parse numbers in files and on the command line in the notation of YAML 1.2's core schema."""

import math
import re
from typing import Any

import click

INTEGER = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
DECIMAL = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
MAX_LETTERS = 3500  # characters of a number, because Python prints no number of more than 4300 digits


def to_int(text: str) -> int:
    """Convert a text that matches ``INTEGER`` to an int. Leading zeros are ignored: ``010`` is 10."""
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def whole_number(text: str) -> int | None:
    """Return the value of a whole number such as ``1000000``, ``1e6`` or ``1.5e3``. Return None for other texts."""
    if len(text) <= MAX_LETTERS and re.fullmatch(INTEGER, text):
        return to_int(text)
    value = float(text) if re.fullmatch(DECIMAL, text) else math.nan
    return int(value) if value.is_integer() else None


class Count(click.IntRange):
    """Option type for a whole number in a range, written as ``1000000``, ``1_000_000`` or ``1e6``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = whole_number(value) if isinstance(value, str) else None
        return super().convert(value if found is None else found, param, ctx)
