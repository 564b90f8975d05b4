"""Hostile names and texts: paths of a set's files, and texts that commands print."""

import os
from pathlib import Path
from typing import Any

from tests.helpers.resign import resign
from tests.hostile.case import READERS, Case
from tests.hostile.forge import signed, sparse

SHELL = "pipe:touch hacked"
NAMES = {
    "path": "../teacher.safetensors",
    "absolute": "/etc/passwd",
    "URL": "file:///etc/passwd",
    "web": "http://127.0.0.1:1/patches-000000.tar",
    "command": SHELL,
    "shell words": "$(touch hacked).tar",
    "braces": "patches-{000000..999999}.tar",
    "backslashes": "..\\patches-000000.tar",
    "NUL": "patches-000000.tar\x00.png",
    "line feed": "patches-000000.tar\n",
    "fullwidth digits": "patches-00000\uff10.tar",
    "homoglyph": "p\u0430tches-000000.tar",
    "capitals": "PATCHES-000000.TAR",
    "right-to-left": "patches-000000.\u202erat",
    "zero width": "patches-000000\u200b.tar",
    "no name": "",
}


def _named(name: str) -> Any:
    return signed(lambda value: value["shards"][0].update(name=name))


def _table_named(name: str) -> Any:
    return signed(lambda value: value["shards"][0]["parquet"].update(name=name))


def _second_is_first(value: dict[str, Any]) -> None:
    value["shards"][1]["name"] = value["shards"][0]["name"]


def _moved(name: str, how: str) -> Any:
    """Move a file out of the set, and put a link, a pipe, a folder or a device in its place."""

    def make(world: Path) -> None:
        path = world / "set" / name
        path.rename(world / name)
        if how == "link":
            path.symlink_to(world / name)
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "folder":
            path.mkdir()
        elif how == "device":
            path.symlink_to("/dev/zero")

    return make


def _extra_shard(world: Path) -> None:
    (world / "set" / "patches-000007.tar").write_bytes(b"")


def _sums(line: bytes) -> Any:
    def make(world: Path) -> None:
        path = world / "set" / "SHA256SUMS"
        path.write_bytes(path.read_bytes() + line)

    return make


def _longer(name: str) -> Any:
    """Make a file of the set 1 TB long (sparse), after the set was signed."""

    def make(world: Path) -> None:
        if not (world / "set" / name).exists():
            sparse(world / "set" / name, 1)
            resign(world / "set")
        os.truncate(world / "set" / name, 1 << 40)

    return make


def _many_sums(world: Path) -> None:
    path = world / "set" / "SHA256SUMS"
    lines = [*path.read_text().splitlines(), *(f"{'0' * 64}  x{number:08d}" for number in range(300_000))]
    path.write_text("\n".join(sorted(lines, key=lambda line: line[66:])) + "\n")


def _text(key: str, value: str) -> Any:
    def make(world: Path) -> None:
        resign(world / "set", lambda manifest: manifest["sources"][0].update({key: value}))
        (world / "set" / "patches-000000.tar").unlink()

    return make


CASES = (
    *(
        Case(
            name=f"shard named: {kind}",
            make=_named(name),
            entrances=("info", "open", "train"),
            said="shards[0].name is",
        )
        for kind, name in NAMES.items()
    ),
    *(
        Case(
            name=f"table named: {kind}",
            make=_table_named(NAMES[kind]),
            entrances=("info", "open", "train"),
            said="shards[0].parquet.name is",
        )
        for kind in ("path", "absolute", "command", "NUL")
    ),
    Case(name="shard twice", make=signed(_second_is_first), entrances=("info", "train"), said="shards[1].name is"),
    *(
        Case(
            name=f"shard that is a {how}",
            make=_moved("patches-000000.tar", how),
            entrances=READERS,
            said="regular file",
        )
        for how in ("link", "pipe", "folder", "device")
    ),
    *(
        Case(
            name=f"table that is a {how}",
            make=_moved("patches-000000.parquet", how),
            entrances=("verify", "fast", "open", "diff"),
            said="regular file",
        )
        for how in ("link", "pipe", "folder", "device")
    ),
    Case(
        name="sums that are a pipe",
        make=_moved("SHA256SUMS", "pipe"),
        entrances=("verify", "fast"),
        said="regular file",
    ),
    Case(
        name="sums that lead away",
        make=_moved("SHA256SUMS", "device"),
        entrances=("verify", "fast"),
        said="regular file",
    ),
    Case(
        name="sums of a file outside of the folder",
        make=_sums(b"0" * 64 + b"  ../../etc/passwd\n"),
        entrances=("verify",),
        said="SHA256SUMS",
    ),
    Case(name="sums in MD5", make=_sums(b"0" * 32 + b"  z\n"), entrances=("verify",), said="SHA256SUMS: line"),
    Case(name="sums of 300,000 files", make=_many_sums, entrances=("verify", "fast"), said="more faults"),
    Case(name="sums of 1 TB", make=_longer("SHA256SUMS"), entrances=("verify", "fast"), said="at most"),
    Case(
        name="shard of 1 TB",
        make=_longer("patches-000000.tar"),
        entrances=("verify", "fast", "open", "train"),
        said="1099511627776 bytes, the manifest declares",
    ),
    Case(
        name="table of 1 TB",
        make=_longer("patches-000000.parquet"),
        entrances=("verify", "fast"),
        said="1099511627776 bytes, the manifest declares",
    ),
    *(
        Case(name=f"{name} of 1 TB", make=_longer(name), entrances=("verify", "fast"), said="at most")
        for name in ("croissant.json", "index.json", "patches-000000.idx")
    ),
    Case(name="a shard too many", make=_extra_shard, entrances=("verify", "fast"), said="not part of the set"),
    Case(name="card text of shell words", make=_text("url", SHELL), entrances=READERS, said="patches-000000.tar"),
    Case(
        name="card text of terminal escapes",
        make=_text("attribution", "\x1b]0;hacked\x07\x1b[2J\u202e"),
        entrances=READERS,
        said="patches-000000.tar",
    ),
    Case(
        name="source named by 300 letters",
        make=signed(lambda value: value["sources"][0].update(name="x" * 300)),
        entrances=("info", "train"),
        said="sources[0].name",
    ),
    Case(
        name="terminal escapes as an unknown key",
        make=signed(lambda value: value.update({"\x1b[31m\r\nhacked": 1})),
        entrances=("info", "train"),
        said="unknown key",
    ),
)
