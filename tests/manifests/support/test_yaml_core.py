"""Test scalars of YAML: configs, recipes, tables, ``--set`` and options all use the core schema of YAML 1.2."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from manifests.support.numbers import Count, whole_number
from manifests.support.validation import read_counts
from manifests.support.yaml_core import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0o10", 8),
        ("0x1F", 31),
        ("+12", 12),
        ("1e6", 1e6),
        ("1E+6", 1e6),
        ("4e-1", 0.4),
        ("1.5e3", 1500.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *((word, word) for word in ("yes", "no", "on", "Off", "y", "N", "tRue", "nan", "inf", "Infinity")),
        *((word, word) for word in ("1:30", "1:30:00.5", "1_000", "0b11", "-0x1", "0o8", "1e", "e5", "=", ".")),
        *((word, word) for word in ("2024-13-45", "2001-01-01", "2001-01-01 10:00:00", "~/c", "\uff11")),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}\n")["a"]
    assert (found, type(found)) == (value, type(value))
    assert parse_yaml(f"[{text}]") in ([value], [])  # "[]" is an empty list, not a list with a null


def test_no_number() -> None:
    assert math.isnan(parse_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("!!int 1:30", "invalid literal for int.*'1:30'"),
        ("!!int ''", "invalid literal for int.*''"),
        ("!!float a", "could not convert string to float: 'a'"),
        ("!!bool yes", "not YAML: 'yes'"),
        ("!!timestamp 2001-01-01", "tag.*timestamp"),
        ("0x" + "f" * 4000, "a number has 4002 characters"),
    ],
)
def test_scalars_that_are_refused(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part) as caught:
        parse_yaml(f"a: {text}")
    assert "\n" not in str(caught.value)


def test_groups_share_keys_by_a_merge() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}")["b"] == {"x": 1, "y": 2}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
    | st.sampled_from(["1e6", "010", "1:30", "yes", "on", "0o7", "2001-01-01", "~", "", "=", "<<", "-.inf", "1_000"])
)


@given(st.dictionaries(st.sampled_from("abc"), SCALARS | st.lists(SCALARS, max_size=3), max_size=3))
def test_what_is_written_is_read_again(value: dict[str, Any]) -> None:
    """Written YAML is read again as the same value.

    A reader of YAML 1.1 (PyYAML) reads the same value too: a user's script may read the config of a run.
    """
    text = dump_yaml(value)
    assert repr(parse_yaml(text)) == repr(value)
    assert repr(yaml.safe_load(text)) == repr(value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e6", 10**6),
        ("1000000.0", 10**6),
        ("1.5e3", 1500),
        ("010", 10),
        ("1.5e0", None),
        ("1e400", None),
        ("x", None),
    ],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(("text", "count"), [("1e3", 1000), ("1_000", 1000), ("0100", 100), ("2", 2)])
def test_counts_of_options(text: str, count: int) -> None:
    assert Count(1, 1000).convert(text, None, None) == count


@pytest.mark.parametrize("text", ["1.5", "1e4", "0", "1:30", "true", "", "nan", "1e400"])
def test_options_that_are_no_count(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Count(1, 1000).convert(text, None, None)


class Inner(BaseModel):
    model_config = ConfigDict(extra="allow")
    count: int | None = None


class Outer(BaseModel):
    count: int
    share: float | None = None
    on: bool = False
    level: Literal[1, 2] = 1
    pairs: tuple[int, float] = (0, 0.0)
    named: dict[str, Inner] = {}
    one: Annotated[Inner | Outer | None, Field(description="either")] = None
    any: Any = None


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"count": 1e6}, {"count": 10**6}),
        ({"count": 1.5}, {"count": 1.5}),
        ({"share": 2.0}, {"share": 2.0}),
        ({"count": True, "share": False}, {"count": "true", "share": "false"}),
        ({"on": True, "any": [True, 1.0]}, {"on": True, "any": [True, 1.0]}),
        ({"level": 2.0}, {"level": 2}),
        ({"pairs": [3.0, True]}, {"pairs": [3.0, "true"]}),
        ({"named": {"count": {"count": 4.0, "free": 4.0}}}, {"named": {"count": {"count": 4, "free": 4.0}}}),
        ({"one": {"count": 4.0, "on": True}}, {"one": {"count": 4, "on": True}}),
        ({"unknown": True}, {"unknown": True}),
        ([1.0], [1.0]),
        (None, None),
    ],
)
def test_counts_by_their_model(value: Any, read: Any) -> None:
    assert repr(read_counts(value, Outer)) == repr(read)
