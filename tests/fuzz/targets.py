"""Fuzz targets: each accepts its input, or refuses the input with its own error and a message of one line.

Any other exception is a defect. ``tests/test_fuzz.py`` runs the targets with Hypothesis. ``scripts/stress/fuzz.py``
runs them with a coverage-guided fuzzer.
"""

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import torch
from PIL import Image

from distill.config.schema import Config, parse_config
from distill.errors import DistillError
from distill.weights.torch_files import load_torch_file
from manifests.errors import PatchSetError
from manifests.foreign.image_data import read_samples
from manifests.foreign.listing import LeftOut
from manifests.format import shard_table, tar
from manifests.format.checksums import format_sums, read_sums
from manifests.format.digest import set_id
from manifests.format.schema import parse_manifest
from manifests.limits import IMAGE_FORMATS
from manifests.untrusted.decode import decode_image
from manifests.untrusted.images import decode_patch
from patchgen.errors import PatchgenError
from patchgen.recipe import parse_recipe, recorded_recipe
from patchgen.recipes import packaged_recipes

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "manifests" / "golden").glob("*.json"))
MOST = 1 << 20
ROWS, SIZE = 3, 8


class Target(NamedTuple):
    """A fuzz target. ``run`` returns whether bytes are accepted. ``good`` returns examples of accepted bytes."""

    run: Callable[[bytes], bool]
    good: Callable[[], Iterable[bytes]]


def _scratch(data: bytes, name: str) -> Path:
    path = Path(_FOLDER.name) / name
    path.write_bytes(data)
    return path


_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")


def _refused(call: Callable[[], object], *errors: type[Exception]) -> bool:
    """Return whether ``call`` raised one of ``errors``. Check that the message is one line."""
    try:
        call()
    except errors as error:
        line = str(error)
        if not line or len(line.splitlines()) != 1 or len(line) > 20_000:
            raise RuntimeError(f"a refusal of {len(line)} letters, not one line: {line[:200]!r}") from error
        return True
    return False


def manifest(data: bytes) -> bool:
    """Parse a manifest. If the manifest is accepted, parse its recipe too."""
    found = []
    if _refused(lambda: found.append(parse_manifest(data, "m.json")), PatchSetError):
        return False
    _refused(lambda: recorded_recipe(found[0].recipe, found[0].encoding.model_dump()), PatchgenError, PatchSetError)
    return True


def signed(data: bytes) -> bool:
    """Replace keys of a good manifest by those of a JSON object, correct the ``set_id``, and parse the manifest."""
    try:
        changes = json.loads(data)
        if not isinstance(changes, dict):
            return False
        value = json.loads(GOLDEN[0].read_bytes()) | changes
        value["set_id"] = set_id(value)
        text = json.dumps(value).encode()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return False  # no set_id can be computed
    return manifest(text)


def table(data: bytes) -> bool:
    """Read a table with every function that reads tables."""
    path = _scratch(data, "t.parquet")
    shard_table.read_metadata(path)
    ways: tuple[Callable[[], object], ...] = (
        lambda: shard_table.count_rows(path),
        lambda: shard_table.read_columns(path, ROWS),
        lambda: shard_table.read_columns(path, ROWS, ("sha256", "pixels")),
        lambda: shard_table.read_places(path, ROWS),
        lambda: shard_table.read_parameters(path, ROWS, ("angle", "flip")),
    )
    refusals = [_refused(way, PatchSetError) for way in ways]  # try every way, also after a refusal
    return not any(refusals)


def archive(data: bytes) -> bool:
    """Check a shard's bytes. Every reader of shards makes this check first."""
    path = _scratch(data, "s.tar")
    names = [f"{index:09d}.png" for index in range(ROWS)]
    return not _refused(lambda: tar.require_canonical(path, names, 1000), PatchSetError)


def labelled(data: bytes) -> bool:
    """Read a tar of labelled images. No other check runs before."""
    path = _scratch(data, "l.tar")
    return not _refused(lambda: read_samples(path, LeftOut(), with_labels=True), PatchSetError)


def image(data: bytes) -> bool:
    """Decode an image as a patch in each format of a set, and as a labelled image."""
    refusals = [_refused(lambda: decode_image(data, "x"), PatchSetError)] if len(data) < MOST else []
    for name in IMAGE_FORMATS:
        refusals.append(_refused(lambda name=name: decode_patch(data, "x", SIZE, name), PatchSetError))
    return not all(refusals)


def weights(data: bytes) -> bool:
    """Read a weight file of ``torch.save``."""
    path = _scratch(data, "w.pt")
    return not _refused(lambda: load_torch_file(path), DistillError)


def sums(data: bytes) -> bool:
    """Read a file ``SHA256SUMS``."""
    path = _scratch(data, "SHA256SUMS")
    return not _refused(lambda: read_sums(path), PatchSetError)


def config(data: bytes) -> bool:
    """Parse a config of ``distill``."""
    text = data.decode("utf-8", "replace")
    return not _refused(lambda: parse_config(text, "c.yaml", {}, Config), DistillError)


def recipe(data: bytes) -> bool:
    """Parse a recipe of ``patchgen``."""
    text = data.decode("utf-8", "replace")
    return not _refused(lambda: parse_recipe(text, "r.yaml"), PatchgenError)


def _tables() -> Iterable[bytes]:
    numbers = {name: list(range(ROWS)) for name in ("index", "offset", "size")}
    digests = [bytes([row]) * 32 for row in range(ROWS)]
    contract = {"key": [f"{row:09d}" for row in range(ROWS)], **numbers, "sha256": digests, "pixels": digests}
    made = shard_table.table(contract, {"angle": [0.5] * ROWS, "flip": [True] * ROWS}, b"{}")
    for options in (
        {},
        {"compression": "none", "use_dictionary": False},
        {"row_group_size": 1, "compression": "zstd"},
    ):
        out = io.BytesIO()
        pq.write_table(made, out, **options)
        yield out.getvalue()


def _archives() -> Iterable[bytes]:
    for size in (0, 5, 600):
        members = (tar.header(f"{row:09d}.png", size) + bytes(size) + tar.padding(size) for row in range(ROWS))
        yield b"".join(members) + tar.END


def _images() -> Iterable[bytes]:
    picture = Image.effect_noise((SIZE, SIZE), 80).convert("RGB")
    for name, options in (("PNG", {}), ("JPEG", {"progressive": True}), ("WEBP", {"lossless": True}), ("PPM", {})):
        out = io.BytesIO()
        picture.save(out, name, **options)
        yield out.getvalue()


def _changes() -> Iterable[bytes]:
    value = json.loads(GOLDEN[0].read_bytes())
    for key in sorted(value):
        yield json.dumps({key: value[key]}).encode()


def _labelled() -> Iterable[bytes]:
    pixels = next(iter(_images()))
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as file:
            for name, data in (("a.png", pixels), ("a.cls", b"3"), ("b/" * 60 + "c.png", pixels)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        yield out.getvalue()


def _weights() -> Iterable[bytes]:
    state = {"a.weight": torch.ones(2, 3), "b": [torch.zeros(2, dtype=torch.int64), 0.5, "text"]}
    for zipped in (True, False):
        out = io.BytesIO()
        torch.save(state, out, _use_new_zipfile_serialization=zipped)
        yield out.getvalue()


def _texts(folder: str, names: Iterable[str]) -> Iterable[bytes]:
    return [(ROOT / folder / f"{name}.yaml").read_bytes() for name in names]


TARGETS: dict[str, Target] = {
    "manifest": Target(manifest, lambda: [path.read_bytes() for path in GOLDEN]),
    "signed": Target(signed, _changes),
    "table": Target(table, _tables),
    "archive": Target(archive, _archives),
    "labelled": Target(labelled, _labelled),
    "image": Target(image, _images),
    "weights": Target(weights, _weights),
    "sums": Target(sums, lambda: [format_sums({"manifest.json": "0" * 64, "patches-000000.tar": "1" * 64})]),
    "config": Target(config, lambda: _texts("distill/configs", ["fast-cifar", "resnet20"])),
    "recipe": Target(recipe, lambda: _texts("patchgen/recipes", packaged_recipes())),
}
