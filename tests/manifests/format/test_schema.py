"""Test the manifest: which values ``set_id`` covers, and the one clear line for each fault."""

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import PatchSetError
from manifests.format.digest import set_id
from manifests.format.schema import make_manifest, parse_manifest


@pytest.fixture
def manifest(patchset_path: Path) -> dict[str, Any]:
    return json.loads((patchset_path / "manifest.json").read_bytes())


def parse(value: dict[str, Any], *, sign: bool = True) -> str:
    """Return the error of parsing. First correct the ``set_id``, so that only the edited key is wrong."""
    value = copy.deepcopy(value)
    if sign:
        value["set_id"] = set_id(value)
    with pytest.raises(PatchSetError) as caught:
        parse_manifest(json.dumps(value).encode(), "m.json")
    return str(caught.value)


def test_round_trip(patchset_path: Path) -> None:
    data = (patchset_path / "manifest.json").read_bytes()
    assert parse_manifest(data, "m.json").to_json() == data


def test_set_id_worked_from_the_specification(manifest: dict[str, Any]) -> None:
    expected_id = manifest.pop("set_id")
    del manifest["environment"]
    for source in manifest["sources"]:
        for key in ("name", "licence", "url", "attribution"):
            del source[key]
    for shard in manifest["shards"]:
        del shard["parquet"]
    # The numbers of this manifest need only one special rule of RFC 8785: 30.0 is written as 30.
    text = re.sub(r"(\d)\.0(?=[],}])", r"\1", json.dumps(manifest, sort_keys=True, separators=(",", ":")))
    assert hashlib.sha256(text.encode()).hexdigest() == expected_id


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["environment"].update(python="9"),
        lambda m: m["shards"][0]["parquet"].update(sha256="0" * 64, bytes=1),
        lambda m: m["sources"][0].update(name="other.png", licence="CC0", url="https://example.org", attribution="A"),
    ],
)
def test_set_id_leaves_out_what_changes_no_byte(manifest: dict[str, Any], edit: Any) -> None:
    before = set_id(manifest)
    edit(manifest)
    assert set_id(manifest) == before
    parse_manifest(json.dumps(manifest).encode(), "m.json")


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(seed=1),
        lambda m: m["recipe"].update(version=2),
        lambda m: m["encoding"].update(compression=2),
        lambda m: m["shards"][1].update(sha256="0" * 64),
        lambda m: m["sources"][0].update(pixels="0" * 64),
        lambda m: m.update(pixel_root="0" * 64),
    ],
)
def test_an_edited_manifest_is_refused(manifest: dict[str, Any], edit: Any) -> None:
    edit(manifest)
    assert "edited" in parse(manifest, sign=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.pop("seed"), "m.json: required key 'seed' is missing"),
        (lambda m: m.update(sourses=1), "m.json: unknown key 'sourses'; did you mean 'sources'?"),
        (lambda m: m.update(n="200"), "m.json: n: Input should be a valid integer, got '200'"),
        (lambda m: m.update(n=201), "m.json: n is 201, but the shards declare 200 patches"),
        (lambda m: m.update(size=0), "m.json: size: Input should be greater than or equal to 1, got 0"),
        (
            lambda m: m["shards"][1].update(name="../patches-000001.tar"),
            "m.json: shards[1].name is '../patches-000001.tar', expected 'patches-000001.tar'",
        ),
        (lambda m: m["shards"][1].update(first_index=81), "m.json: shards[1].first_index is 81, expected 80"),
        (
            lambda m: m["shards"][2]["parquet"].update(name="/etc/passwd"),
            "m.json: shards[2].parquet.name is '/etc/passwd', expected 'patches-000002.parquet'",
        ),
        (
            lambda m: m["encoding"].update(format="gif"),
            "m.json: encoding.format: Input should be 'png', 'jpg', 'webp' or 'ppm', got 'gif'",
        ),
    ],
)
def test_a_fault_is_named_by_its_key(manifest: dict[str, Any], edit: Any, message: str) -> None:
    edit(manifest)
    assert parse(manifest) == f"{message}; download the manifest again"


@pytest.mark.parametrize("value", ["x", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_a_digest_is_64_lower_case_hex_digits(manifest: dict[str, Any], value: str) -> None:
    manifest["shards"][0]["sha256"] = value
    assert parse(manifest).startswith("m.json: shards[0].sha256: String should match pattern")


def test_another_format_version(manifest: dict[str, Any]) -> None:
    manifest["format"] = "patchset/2"
    assert "'patchset/2'" in parse(manifest)
    with pytest.raises(PatchSetError, match="the content is a JSON list"):
        parse_manifest(b"[]", "m.json")


def test_a_manifest_of_ten_shards_is_small(manifest: dict[str, Any]) -> None:
    shard = manifest["shards"][0]
    shards = [
        shard
        | {"name": f"patches-{k:06d}.tar", "first_index": 20_000 * k, "n": 20_000}
        | {"parquet": shard["parquet"] | {"name": f"patches-{k:06d}.parquet"}}
        for k in range(50)
    ]
    fields = {k: v for k, v in manifest.items() if k not in ("format", "set_id")}
    assert len(make_manifest(**(fields | {"shards": shards, "n": 1_000_000})).to_json()) < 24_000
