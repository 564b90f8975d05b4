"""Parse, validate and create the manifest of a patch set, format ``patchset/1``."""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.errors import PatchSetError, corrupt
from manifests.format.canonical_json import MAX_SAFE_INTEGER, measure, parse_json
from manifests.format.digest import set_id
from manifests.format.tar import BLOCK, END
from manifests.limits import KEY_DIGITS, MAX_PATCHES, ImageFormat, max_patch_bytes
from manifests.support.counts import counted
from manifests.support.validation import describe

FORMAT = "patchset/1"
MANIFEST_NAME = "manifest.json"
SHARD_FILE = re.compile(r"patches-\d{6}\.(tar|parquet)")  # name of a shard's tar or table
MAX_MANIFEST_BYTES = 48 << 20  # a manifest of ``MAX_SHARDS`` shards has about 31 MB
MAX_SHARD = 10**6  # patches in a shard, because a table is read whole
MAX_SIZE = 4096  # pixels of a side of a patch
MAX_SOURCES = 10_000
MAX_SHARDS = 90_000  # validating a manifest of 90,000 shards takes 500 MB of memory
MAX_ENTRY_VALUES = 32  # values in one source or shard, because pydantic keeps an error for each unknown key
PACKED: Literal["packed"] = "packed"  # recipe name of a set of packed images, which were not cut from a photo
MAX_OWN_VALUES = 10_000  # values outside sources and shards: recipe, encoding, environment
MAX_LETTERS = 10_000_000  # characters in all strings outside shards

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Encoding(_Frozen):
    """``format`` is the image format of the patches. Readers ignore all other keys, the parameters of the encoder."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    format: ImageFormat


class Source(_Frozen):
    """One photo. ``width`` and ``height`` are in pixels, after the photo was turned according to its EXIF data."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    sha256: Sha256  # of the file
    pixels: Sha256  # digest of the decoded pixels
    width: Pixels
    height: Pixels
    licence: str | None = None
    url: str | None = None
    attribution: str | None = None


class File(_Frozen):
    """The name, the size and the digest of a file of a set."""

    name: str
    bytes: Bytes
    sha256: Sha256


class Shard(File):
    """A tar file with ``n`` patches. The first patch has the index ``first_index``. ``parquet`` is the shard's table.

    ``set_id`` does not cover the table, because the bytes of a table depend on the version of the Parquet writer.
    """

    n: Annotated[int, Field(ge=1, le=MAX_SHARD)]
    first_index: Annotated[int, Field(ge=0, le=MAX_PATCHES)]
    parquet: File


class Manifest(_Frozen):
    """The content of ``manifest.json``: it describes ``n`` patches of ``size`` × ``size`` pixels, in index order."""

    format: Literal["patchset/1"]
    set_id: Sha256
    n: Annotated[int, Field(ge=1, le=MAX_PATCHES)]
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    seed: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    encoding: Encoding
    recipe: dict[str, Any]
    # Without fail_fast, pydantic would keep an error for each of a million wrong items.
    sources: Annotated[tuple[Source, ...], Field(min_length=1, max_length=MAX_SOURCES, fail_fast=True)]
    shards: Annotated[tuple[Shard, ...], Field(min_length=1, fail_fast=True)]
    pixel_root: Sha256
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        expected = 0
        for number, shard in enumerate(self.shards):
            name = shard_name(number)
            for key, found, right in (
                ("name", shard.name, name),
                ("parquet.name", shard.parquet.name, name.removesuffix("tar") + "parquet"),
                ("first_index", shard.first_index, expected),
            ):
                if found != right:
                    raise ValueError(f"shards[{number}].{key} is {found!r}, expected {right!r}")
            expected += shard.n
            most = shard.n * (2 * BLOCK + max_patch_bytes(self.size)) + len(END)
            table = shard.parquet.bytes, (shard.n << 15) + (16 << 20)  # 32 KiB a row, and 16 MiB
            for key, num_bytes, limit in (("bytes", shard.bytes, most), ("parquet.bytes", *table)):
                if num_bytes > limit:
                    what = f"is {num_bytes} bytes, expected at most {limit} for {counted(shard.n, 'patch')}"
                    raise ValueError(f"shards[{number}].{key} {what}")
        if expected != self.n:
            raise ValueError(f"n is {self.n}, but the shards declare {counted(expected, 'patch')}")
        return self

    @property
    def files(self) -> tuple[File, ...]:
        """Return the tar and the table of every shard."""
        return tuple(file for shard in self.shards for file in (shard, shard.parquet))

    def to_json(self) -> bytes:
        """Return the bytes of ``manifest.json``: sorted keys, one-space indent, UTF-8, a final newline."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode("utf-8")


def shard_name(number: int) -> str:
    """Return the file name of shard ``number``, counted from 0."""
    return f"patches-{number:06d}.tar"


def patch_key(index: int) -> str:
    """Return the key of a patch in tar and table: the index in nine digits. Sorted keys are in index order."""
    return f"{index:0{KEY_DIGITS}d}"


def make_manifest(**fields: Any) -> Manifest:
    """Return a manifest with ``fields``, and with the keys ``format`` and ``set_id``, which this function adds."""
    unsigned = {**fields, "format": FORMAT, "set_id": "0" * 64}
    dumped = _validate(json.dumps(unsigned, ensure_ascii=False), "new manifest").model_dump(mode="json")
    return _validate(json.dumps({**dumped, "set_id": set_id(dumped)}, ensure_ascii=False), "new manifest")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse and validate the bytes of a ``manifest.json``. ``where`` is the name of the file in errors."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise corrupt(where, f"the content is a JSON {type(value).__name__}, expected a JSON object")
    if (found := value.get("format")) != FORMAT:
        what = f"format is {found!r}, expected {FORMAT!r}"
        raise PatchSetError(f"{where}: {what}; use the version of this package that wrote the set")
    _require_bounded(value, where)
    del value  # it takes hundreds of megabytes, and the validation needs as much again
    manifest = _validate(data, where, "download the manifest again")
    if (computed := set_id(manifest.model_dump(mode="json"))) != manifest.set_id:
        what = f"set_id is {manifest.set_id}, expected {computed}: the manifest was edited or damaged"
        raise PatchSetError(f"{where}: {what}; download the manifest again")
    return manifest


def _require_bounded(value: dict[str, Any], where: str) -> None:
    """Refuse a manifest with too many values, because its validation would need too much memory."""
    for name, most in (("sources", MAX_SOURCES), ("shards", MAX_SHARDS)):
        entries = value.get(name)
        if not isinstance(entries, list):
            continue  # validation reports the type
        if len(entries) > most:
            raise corrupt(where, f"the manifest declares {len(entries)} {name}, expected at most {most}")
        for number, entry in enumerate(entries):
            if (values := measure(entry)[0]) > MAX_ENTRY_VALUES:
                raise corrupt(where, f"{name}[{number}] has {values} values, expected at most {MAX_ENTRY_VALUES}")
    own, _ = measure([item for key, item in value.items() if key not in ("shards", "sources")])
    if own > MAX_OWN_VALUES:
        raise corrupt(where, f"{own} values are outside sources and shards, expected at most {MAX_OWN_VALUES}")
    _, letters = measure([item for key, item in value.items() if key != "shards"])
    if letters > MAX_LETTERS:
        raise corrupt(where, f"{letters} characters are outside shards, expected at most {MAX_LETTERS}")


def _validate(data: bytes | str, where: str, advice: str = "correct the parameters of the set") -> Manifest:
    try:
        # JSON mode reads a JSON array as a tuple, and coerces nothing else.
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise PatchSetError(f"{where}: {describe(error, Manifest)}; {advice}") from error
