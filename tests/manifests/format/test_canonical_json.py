"""Test canonical JSON against the examples of RFC 8785, and test strict parsing."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import PatchSetError
from manifests.format.canonical_json import canonical_json, parse_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) < 2**53 or abs(x) >= 1e21)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner),
    max_leaves=20,
)


# RFC 8785, appendix B: the bits of IEEE-754 numbers, and their text in ECMAScript.
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_of_rfc_8785(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value) == text.encode()


def test_the_example_of_rfc_8785() -> None:
    value = json.loads(
        r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    )
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
    )
    assert canonical_json(value).decode() == expected


def test_keys_sort_by_utf16_code_units() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    ordered = ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical_json(dict.fromkeys(keys, 0)))) == ordered


@given(json_values)
def test_canonical_bytes_parse_back_and_are_stable(value: object) -> None:
    data = canonical_json(value)
    back = parse_json(data, "test")
    assert back == value
    assert canonical_json(back) == data


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (2**53, "exceeds safe integer"),
        (2.0**53, "is outside"),  # RFC 8785 writes an integer here, which many parsers round
        (math.nan, "nan is not representable"),
        (math.inf, "inf is not representable"),
        ("\ud800", "non-UTF-8"),
        ({1: 2}, "keys must be strings"),
        ({"a": {1, 2}}, "unsupported type.*set"),
    ],
)
def test_values_json_cannot_hold(value: object, part: str) -> None:
    with pytest.raises(PatchSetError, match=part):
        canonical_json(value)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b"\xff", "UTF-8"),
        (b'{"a": ', "line 1"),
        (b"[" * 200_000, "nested"),
        (b"1" * 5000, "is outside"),
        (b"[" * 65 + b"]" * 65, "nested more than 64"),
        (b"[" + b"0," * 2_000_000 + b"0]", "about 2000001 values"),
        (b'"' + b"x" * 1_000_001 + b'"', "1000001 characters"),
        (b'{"' + b"x" * 1_000_001 + b'": 0}', "1000001 characters"),
        (b'["\\ud800"]', "not valid Unicode"),
    ],
)
def test_texts_parsers_disagree_about(data: bytes, part: str) -> None:
    with pytest.raises(PatchSetError, match=part) as caught:
        parse_json(data, "m.json")
    assert str(caught.value).startswith("m.json: ")
    assert "\n" not in str(caught.value)
