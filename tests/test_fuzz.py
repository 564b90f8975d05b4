"""Test that every fuzz target accepts or refuses random bytes, and good bytes with small changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import GOLDEN, TARGETS

SEEDS = Path(__file__).parent / "seeds"
FOUND = sorted(path for path in SEEDS.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_the_good_ones_are_accepted(name: str) -> None:
    good = list(TARGETS[name].good())
    assert good and all(TARGETS[name].run(data) for data in good)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_fuzzing_found_is_refused_in_one_line(path: Path) -> None:
    TARGETS[path.parent.name].run(path.read_bytes())


@st.composite
def changed(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """Return good bytes after a few changes: parts are deleted, doubled or replaced."""
    data = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from((0, 1, 1, 4, 32, 512)))
        new = draw(st.one_of(st.binary(max_size=12), st.just(data[at : at + length] * 2)))
        data = data[:at] + new + data[at + length :]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    good = list(TARGETS[name].good())

    @settings(max_examples=150, database=None)
    @given(st.one_of(st.binary(max_size=2000), changed(good), changed(good)))
    def run(data: bytes) -> None:
        TARGETS[name].run(data)

    run()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def edited(draw: st.DrawFn) -> Any:
    """Return a good manifest with one changed value or one deleted key, at any depth."""
    value = json.loads(GOLDEN[0].read_bytes())
    inner: Any = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = draw(st.sampled_from(keys))
        below = inner[key]
        if not (isinstance(below, dict | list) and below and draw(st.booleans())):
            break
        inner = below
    if isinstance(inner, dict) and draw(st.booleans()):
        del inner[key]
    else:
        inner[key] = draw(json_values)
    return value


@settings(max_examples=400, database=None)
@given(edited())
def test_a_manifest_edited_and_signed_again(value: Any) -> None:
    TARGETS["signed"].run(json.dumps(value).encode())
