"""Hostile manifests: too large, too deep, not JSON, false numbers and names."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.helpers.resign import put_manifest
from tests.hostile.case import READERS, Case
from tests.hostile.forge import signed, sparse, text

LOOKS = ("info", "verify", "train")


def _key(key: str, value: Any) -> Any:
    return signed(lambda manifest: manifest.update({key: value}))


def _shard(key: str, value: Any) -> Any:
    return signed(lambda manifest: manifest["shards"][0].update({key: value}))


def _parquet(key: str, value: Any) -> Any:
    return signed(lambda manifest: manifest["shards"][0]["parquet"].update({key: value}))


def _source(key: str, value: Any) -> Any:
    return signed(lambda manifest: manifest["sources"][0].update({key: value}))


def _gigabyte(world: Path) -> None:
    sparse(world / "set" / "manifest.json", 1 << 30)


def _spaces(world: Path) -> None:
    put_manifest(world / "set", b" " * (40 << 20) + b"{}")


def _members(world: Path) -> None:
    many = ",".join(f'"{number}":0' for number in range(3_000_000))
    put_manifest(world / "set", f'{{"format":"patchset/1","recipe":{{{many}}}}}'.encode())


def _repeated(count: int) -> Any:
    return signed(lambda value: value.update(shards=value["shards"][:1] * count))


def _letters(world: Path) -> None:
    value = json.loads((world / "set" / "manifest.json").read_bytes())
    value["recipe"]["name"] = "x" * (40 << 20)
    put_manifest(world / "set", json.dumps(value).encode())


def _values(world: Path) -> None:
    """Write a manifest of 8 MB whose environment has 990,000 small objects."""
    value = json.loads((world / "set" / "manifest.json").read_bytes()) | {"environment": {"x": "@"}}
    put_manifest(world / "set", json.dumps(value).encode().replace(b'"@"', b"[" + b'{"a":0},' * 990_000 + b"0]"))


def _emoji(world: Path) -> None:
    """Write a manifest with 44 MB of text. Each text has one emoji, so Python needs four bytes for every letter."""
    value = json.loads((world / "set" / "manifest.json").read_bytes()) | {"environment": {"x": "@"}}
    texts = ",".join(['"\U0001f600' + "a" * 999_900 + '"'] * 46)
    put_manifest(world / "set", json.dumps(value).encode().replace(b'"@"', f"[{texts}]".encode()))


def _empty_shards(world: Path) -> None:
    value = json.loads((world / "set" / "manifest.json").read_bytes()) | {"shards": "@"}
    put_manifest(world / "set", json.dumps(value).encode().replace(b'"@"', b"[" + b"{}," * 600_000 + b"{}]"))


def _hundred(world: Path) -> None:
    put_manifest(world / "set", b'{"format": "' + b"x" * (100 << 20) + b'"}')


def _pipe(world: Path) -> None:
    (world / "set" / "manifest.json").unlink()
    os.mkfifo(world / "set" / "manifest.json")


def _folder(world: Path) -> None:
    (world / "set" / "manifest.json").unlink()
    (world / "set" / "manifest.json").mkdir()


def _device(world: Path) -> None:
    (world / "set" / "manifest.json").unlink()
    (world / "set" / "manifest.json").symlink_to("/dev/zero")


def _loop(world: Path) -> None:
    (world / "set" / "manifest.json").unlink()
    (world / "set" / "manifest.json").symlink_to("manifest.json")


def _no_set(world: Path) -> None:
    shutil.rmtree(world / "set")
    (world / "set").symlink_to("set")


def _raw(old: bytes, new: bytes) -> Any:
    return text(lambda data: data.replace(old, new, 1))


CASES = (
    Case(name="manifest of 1 GB", make=_gigabyte, entrances=("info", "verify", "train", "open"), said="at most"),
    Case(name="manifest of 40 MB of spaces", make=_spaces, entrances=LOOKS, said="format is None"),
    Case(name="manifest of 100 MB of one text", make=_hundred, entrances=LOOKS, said="at most"),
    Case(name="manifest with a text of 40 MB", make=_letters, entrances=LOOKS, said="characters, expected at most"),
    Case(name="manifest with three million keys", make=_members, entrances=LOOKS, said="values, expected at most"),
    Case(
        name="manifest with 90,000 times one shard",
        make=_repeated(90_000),
        entrances=("info",),
        said="shards[1].name is",
    ),
    Case(name="150,000 times one shard", make=_repeated(150_000), entrances=LOOKS, said="shards, expected at most"),
    *(
        Case(name=f"{key} that are {name}", make=signed(change), entrances=LOOKS, said=key)
        for key in ("sources", "shards")
        for name, change in (
            ("none", lambda value, key=key: value.pop(key)),
            ("null", lambda value, key=key: value.update({key: None})),
            ("a text", lambda value, key=key: value.update({key: "abc"})),
            ("a map", lambda value, key=key: value.update({key: {"a": 1}})),
            ("numbers", lambda value, key=key: value.update({key: [5]})),
            ("lists", lambda value, key=key: value.update({key: [[1]]})),
            (
                "400,000 keys",
                lambda value, key=key: value.update({key: [dict.fromkeys(map(str, range(400_000)), 1)]}),
            ),
            ("1,900,000 numbers", lambda value, key=key: value.update({key: [{"name": [1.5] * 1_900_000}]})),
        )
    ),
    Case(name="environment of 990,000 objects", make=_values, entrances=LOOKS, said="values are outside sources"),
    Case(
        name="environment of 46,000,000 letters", make=_emoji, entrances=LOOKS, said="characters are outside shards"
    ),
    Case(name="600,000 shards of nothing", make=_empty_shards, entrances=LOOKS, said="shards, expected at most"),
    Case(
        name="recipe that reads other files",
        make=signed(
            lambda value: value["recipe"].update(
                augment=[{"name": "HistogramMatching", "p": 1.0, "reference_images": ["/etc/passwd"]}], profile="fast"
            )
        ),
        entrances=("rebuild", "extend"),
        said="reads other files than the photos",
    ),
    Case(
        name="recipe that names code",
        make=signed(
            lambda value: value["recipe"].update(
                augment=[{"name": "os:abort", "p": 1.0, "sha256": "0" * 64}], profile="fast"
            )
        ),
        entrances=("rebuild", "extend"),
        said="the import of os:abort from the package 'os' is not allowed",
    ),
    Case(
        name="manifest nested 100,000 deep",
        make=text(lambda data: b"[" * 100_000 + b"]" * 100_000),
        entrances=LOOKS,
        said="nested",
    ),
    Case(
        name="recipe nested 900 deep",
        make=text(lambda data: data.replace(b'"recipe": {', b'"recipe": {"x": ' + b"[" * 900 + b"]" * 900 + b",", 1)),
        entrances=LOOKS,
        said="nested",
    ),
    Case(name="manifest that is a pipe", make=_pipe, entrances=LOOKS, said="regular file"),
    Case(name="manifest that is a folder", make=_folder, entrances=LOOKS, said="is a folder"),
    Case(name="manifest that leads to /dev/zero", make=_device, entrances=LOOKS, said="regular file"),
    Case(name="manifest that leads to itself", make=_loop, entrances=LOOKS, said="manifest.json"),
    Case(name="set that leads to itself", make=_no_set, entrances=LOOKS, said="set"),
    Case(name="key twice", make=_raw(b'"n": 8', b'"n": 8, "n": 9'), entrances=LOOKS, said="appears twice"),
    Case(name="NaN", make=_raw(b'"n": 8', b'"n": NaN'), entrances=LOOKS, said="NaN is not allowed in JSON"),
    Case(
        name="Infinity in the recipe",
        make=_raw(b'"recipe": {', b'"recipe": {"x": -Infinity,'),
        entrances=LOOKS,
        said="-Infinity is not allowed in JSON",
    ),
    Case(name="1e400", make=_raw(b'"n": 8', b'"n": 1e400'), entrances=LOOKS, said="is too large"),
    Case(
        name="number of 5,000 digits",
        make=_raw(b'"n": 8', b'"n": ' + b"9" * 5000),
        entrances=LOOKS,
        said="is outside",
    ),
    Case(
        name="number beyond 2^53", make=_raw(b'"n": 8', b'"n": 9007199254740993'), entrances=LOOKS, said="is outside"
    ),
    Case(name="-0 patches", make=_raw(b'"n": 8', b'"n": -0'), entrances=LOOKS, said="n: "),
    Case(name="8.0 patches", make=_raw(b'"n": 8', b'"n": 8.0'), entrances=LOOKS, said="n: "),
    Case(name="true as a number", make=_key("seed", True), entrances=LOOKS, said="seed: "),
    Case(name="text as a number", make=_key("seed", "0"), entrances=LOOKS, said="seed: "),
    Case(
        name="invalid Unicode",
        make=_raw(b'"recipe": {', b'"recipe": {"x": "\\ud800",'),
        entrances=LOOKS,
        said="not valid Unicode",
    ),
    Case(name="no UTF-8", make=_raw(b'"recipe": {', b'"recipe": {"x": "\xff",'), entrances=LOOKS, said="not UTF-8"),
    Case(name="UTF-16", make=text(lambda data: data.decode().encode("utf-16")), entrances=LOOKS, said="not UTF-8"),
    Case(name="byte order mark", make=text(lambda data: b"\xef\xbb\xbf" + data), entrances=LOOKS, said="not JSON"),
    Case(name="two manifests in one", make=text(lambda data: data + data), entrances=LOOKS, said="not JSON"),
    Case(name="newer format", make=_key("format", "patchset/2"), entrances=LOOKS, said="'patchset/2'"),
    Case(
        name="format that is a list", make=_key("format", ["patchset/1"]), entrances=LOOKS, said="format is ['patch"
    ),
    Case(name="unknown key", make=_key("run", "os.system"), entrances=LOOKS, said="unknown key 'run'"),
    Case(name="a billion patches", make=_key("n", 10**9), entrances=LOOKS, said="the shards declare 8"),
    Case(name="shard of 10^6 patches", make=_shard("n", 10**6), entrances=LOOKS, said="first_index is"),
    Case(name="shard of -1 patches", make=_shard("n", -1), entrances=LOOKS, said="shards[0].n"),
    Case(name="shards that overlap", make=_shard("n", 6), entrances=LOOKS, said="first_index is 4, expected 6"),
    Case(name="shard of 2^52 bytes", make=_shard("bytes", 2**52), entrances=LOOKS, said="shards[0].bytes is"),
    Case(name="table of 2^52 bytes", make=_parquet("bytes", 2**52), entrances=LOOKS, said="parquet.bytes is"),
    Case(name="patches of 100,000 px", make=_key("size", 100_000), entrances=LOOKS, said="size: "),
    Case(name="patches of 4,096 px", make=_key("size", 4096), entrances=READERS, said="32×32, expected 4096×4096"),
    Case(name="photo of -1 px", make=_source("width", -1), entrances=LOOKS, said="sources[0].width"),
    Case(name="no shards", make=_key("shards", []), entrances=LOOKS, said="shards: "),
    Case(name="encoding of another name", make=_key("encoding", {"format": "gif"}), entrances=LOOKS, said="encoding"),
    Case(name="MD5 for a digest", make=_shard("sha256", "d" * 32), entrances=LOOKS, said="shards[0].sha256"),
    Case(name="SHA-512 for a digest", make=_shard("sha256", "d" * 128), entrances=LOOKS, said="shards[0].sha256"),
    Case(
        name="digest with its name", make=_key("pixel_root", "sha256:" + "d" * 64), entrances=LOOKS, said="pixel_root"
    ),
    Case(
        name="digest in capitals",
        make=signed(lambda value: value["shards"][0].update(sha256=value["shards"][0]["sha256"].upper())),
        entrances=LOOKS,
        said="shards[0].sha256",
    ),
    Case(
        name="digest in fullwidth digits",
        make=_shard("sha256", "\uff11" * 64),
        entrances=LOOKS,
        said="shards[0].sha256",
    ),
    Case(name="digest and a line feed", make=_key("pixel_root", "d" * 64 + "\n"), entrances=LOOKS, said="pixel_root"),
    Case(name="set_id of another set", make=_raw(b'"seed": 0', b'"seed": 1'), entrances=LOOKS, said="set_id is"),
)
