"""Hostile stored logits: arrays with false shapes, objects or values that are not numbers, and false manifests."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from manifests.format.digest import file_digest
from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse

USE = ("stored", "recheck")


def _signed(change: Callable[[dict[str, Any]], Any]) -> Make:
    def make(world: Path) -> None:
        path = world / "labels" / "labels.json"
        value = json.loads(path.read_bytes())
        for file in value["files"]:
            file["sha256"] = file_digest(world / "labels" / file["name"])
        change(value)
        path.write_text(json.dumps(value))

    return make


def _file(data: Callable[[np.ndarray], bytes]) -> Make:
    """Replace the first array file, and correct its digest."""

    def make(world: Path) -> None:
        path = world / "labels" / "logits-000000.npy"
        path.write_bytes(data(np.load(path)))
        _signed(lambda value: None)(world)

    return make


def _array(change: Callable[[np.ndarray], np.ndarray]) -> Make:
    def data(array: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.save(out, change(array), allow_pickle=True)
        return out.getvalue()

    return _file(data)


def _header(text: str) -> Make:
    """Replace the header of the first array file by ``text``, and correct its digest."""

    def data(array: np.ndarray) -> bytes:
        line = text.encode() + b"\n"
        return b"\x93NUMPY\x02\x00" + len(line).to_bytes(4, "little") + line + array.tobytes()

    return _file(data)


def _text(change: Callable[[bytes], bytes]) -> Make:
    def make(world: Path) -> None:
        path = world / "labels" / "labels.json"
        path.write_bytes(change(path.read_bytes()))

    return make


def _instead(how: str, name: str) -> Make:
    def make(world: Path) -> None:
        path = world / "labels" / name
        path.unlink()
        if how == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")

    return make


def _long(steps: int, more: int = 0) -> Make:
    """Replace the first array file by a sparse file of ``steps`` steps with ``more`` bytes at its end, and sign."""

    def make(world: Path) -> None:
        path = world / "labels" / "logits-000000.npy"
        path.unlink()
        manifest = json.loads((world / "labels" / "labels.json").read_bytes())
        rows = steps * manifest["batch_size"]
        np.lib.format.open_memmap(path, "w+", np.float16, (rows, manifest["teacher"]["num_classes"]))
        os.truncate(path, path.stat().st_size + more)
        _signed(lambda value: value["files"][0].update(steps=steps))(world)

    return make


def _objects(array: np.ndarray) -> np.ndarray:
    return np.array([[os.system, "touch hacked"]], dtype=object)


def _shape(shape: str, order: str = "False") -> Make:
    return _header(f"{{'descr': '<f2', 'fortran_order': {order}, 'shape': {shape}, }}")


def _teacher(key: str, value: Any) -> Make:
    return _signed(lambda manifest: manifest["teacher"].update({key: value}))


def _files(value: dict[str, Any]) -> None:
    value["files"] = value["files"] * 100_000


CASES = (
    Case(name="labels: array of objects", make=_array(_objects), entrances=USE, said="logits-000000.npy"),
    Case(name="labels: array of 10^12 rows", make=_shape(f"({10**12}, 4)"), entrances=USE, said="logits-000000.npy"),
    Case(
        name="labels: array of 2^63 rows", make=_shape(f"({2**63}, {2**63})"), entrances=USE, said="logits-000000.npy"
    ),
    Case(name="labels: array of -1 rows", make=_shape("(-1, 4)"), entrances=USE, said="logits-000000.npy"),
    Case(name="labels: array of no shape", make=_shape("()"), entrances=USE, said="logits-000000.npy"),
    Case(name="labels: array in columns", make=_shape("(4, 8)", "True"), entrances=USE, said="logits-000000.npy"),
    Case(
        name="labels: header with code",
        make=_header("__import__('os').system('touch hacked')"),
        entrances=USE,
        said=".npy file",
    ),
    Case(name="labels: header nested 5,000 deep", make=_header("[" * 5000), entrances=USE, said=".npy file"),
    Case(name="labels: header of 2 MB", make=_header("{" + " " * (2 << 20) + "}"), entrances=USE, said=".npy file"),
    Case(
        name="labels: numbers of other order",
        make=_array(lambda a: a.astype(">f2")),
        entrances=USE,
        said="expected float16",
    ),
    Case(
        name="labels: numbers of 8 bytes",
        make=_array(lambda a: a.astype("f8")),
        entrances=USE,
        said="expected float16",
    ),
    Case(
        name="labels: no numbers",
        make=_array(lambda a: a * np.float16("nan")),
        entrances=USE,
        said="not a finite number",
    ),
    Case(
        name="labels: infinite",
        make=_array(lambda a: a * np.float16("inf")),
        entrances=USE,
        said="not a finite number",
    ),
    Case(name="labels: a row too few", make=_array(lambda a: a[1:]), entrances=USE, said="expected float16"),
    Case(
        name="labels: a class too many",
        make=_array(lambda a: np.hstack([a, a[:, :1]])),
        entrances=USE,
        said="expected float16",
    ),
    Case(
        name="labels: zip of arrays",
        make=_file(lambda a: b"PK\x03\x04" + bytes(100)),
        entrances=USE,
        said=".npy file",
    ),
    Case(
        name="labels: pickle for an array",
        make=_file(lambda a: b"cos\nsystem\n(S'touch hacked'\ntR."),
        entrances=USE,
        said=".npy file",
    ),
    Case(
        name="labels: array that is a pipe", make=_instead("pipe", "logits-000000.npy"), entrances=USE, said="regular"
    ),
    Case(
        name="labels: array that leads away",
        make=_instead("device", "logits-000000.npy"),
        entrances=USE,
        said="regular",
    ),
    Case(name="labels: manifest that is a pipe", make=_instead("pipe", "labels.json"), entrances=USE, said="labels"),
    Case(
        name="labels: manifest that leads away", make=_instead("device", "labels.json"), entrances=USE, said="labels"
    ),
    Case(
        name="labels: manifest of 1 GB",
        make=lambda world: sparse(world / "labels" / "labels.json", 1 << 30),
        entrances=USE,
        said="at most",
    ),
    Case(
        name="labels: manifest nested 100,000 deep",
        make=_text(lambda data: b'{"a":' * 100_000),
        entrances=USE,
        said="nested",
    ),
    Case(
        name="labels: key twice",
        make=_text(lambda data: data.replace(b'"files"', b'"batch_size":4,"files"', 1)),
        entrances=USE,
        said="appears twice",
    ),
    Case(
        name="labels: newer format", make=_signed(lambda v: v.update(format="labels/2")), entrances=USE, said="format"
    ),
    Case(
        name="labels: file outside of the folder",
        make=_signed(lambda v: v["files"][0].update(name="../teacher.safetensors")),
        entrances=USE,
        said="files[0].name",
    ),
    Case(name="labels: 100,000 times one file", make=_signed(_files), entrances=USE, said="labels"),
    Case(
        name="labels: 2^53 steps",
        make=_signed(lambda v: v["files"][0].update(steps=2**53 - 1)),
        entrances=USE,
        said="the same number of steps",
    ),
    Case(name="labels: array of 1.2 GB", make=_long(40_000_000), entrances=USE, said="the same number of steps"),
    Case(name="labels: 4 GB behind an array", make=_long(2, 4 << 30), entrances=USE, said="bytes, expected"),
    Case(name="labels: 10^9 classes", make=_teacher("num_classes", 10**9), entrances=USE, said="num_classes"),
    Case(name="labels: deviation of 0", make=_teacher("std", [0.0, 0.0, 0.0]), entrances=USE, said="std"),
    Case(name="labels: deviation of 1e-300", make=_teacher("std", [1e-300] * 3), entrances=USE, said="labels"),
    Case(name="labels: mean of 1e300", make=_teacher("mean", [1e300] * 3), entrances=USE, said="labels"),
    Case(
        name="labels: batches of 10^9",
        make=_signed(lambda v: v.update(batch_size=10**9)),
        entrances=USE,
        said="batch_size",
    ),
    Case(
        name="labels: view that is another",
        make=_signed(lambda v: v["view"].update(seed="\x1b[2J")),
        entrances=USE,
        said="labels",
    ),
    Case(
        name="labels: augmentation of 10^400",
        make=_text(lambda data: data.replace(b'"cutmix_alpha":', b'"cutmix_alpha":1e400,"x":', 1)),
        entrances=USE,
        said="too large",
    ),
)
