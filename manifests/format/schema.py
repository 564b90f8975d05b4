"""Parse, validate and create the manifest of a patch set, format ``patchset/1``."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.errors import PatchSetError
from manifests.format.canonical_json import MAX_SAFE_INTEGER, measure, parse_json
from manifests.format.digest import set_id
from manifests.format.tar import BLOCK, END
from manifests.limits import KEY_DIGITS, MAX_PATCHES, ImageFormat, max_patch_bytes
from manifests.support.counts import counted
from manifests.support.validation import describe

FORMAT = "patchset/1"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 48 << 20  # a manifest of ``MAX_SHARDS`` shards has about 31 MB
MAX_SHARD = 10**6  # patches in a shard, whose table is read whole
MAX_SIZE = 4096  # pixels of a side of a patch
MAX_SOURCES = 10_000
MAX_SHARDS = 90_000  # validating a manifest of so many shards takes 500 MB of memory
MAX_KEYS = 16  # keys of an entry of sources or shards, known or unknown: pydantic keeps an error for each unknown one
PACKED: Literal["packed"] = "packed"  # recipe name of a set whose images were packed, not cut from a photo
MAX_OWN_VALUES = 10_000  # values outside sources and shards: recipe, encoding, environment
MAX_LETTERS = 10_000_000  # characters in all strings outside shards

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Encoding(_Frozen):
    """The image format of the patches, which is all a reader needs, and the encoder's own parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    format: ImageFormat


class Source(_Frozen):
    """One photo. ``width`` and ``height`` are pixels after its orientation tag was applied."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    sha256: Sha256
    pixels: Sha256
    width: Pixels
    height: Pixels
    licence: str | None = None
    url: str | None = None
    attribution: str | None = None


class ParquetFile(_Frozen):
    """The table of a shard. Its bytes depend on the version of the Parquet writer, so they are not in ``set_id``."""

    name: str
    bytes: Bytes
    sha256: Sha256


class Shard(_Frozen):
    """One tar file with the patches ``first_index`` to ``first_index + n - 1``; ``bytes`` is its length."""

    name: str
    n: Annotated[int, Field(ge=1, le=MAX_SHARD)]
    first_index: Annotated[int, Field(ge=0, le=MAX_PATCHES)]
    bytes: Bytes
    sha256: Sha256
    parquet: ParquetFile


class Manifest(_Frozen):
    """The contents of ``manifest.json``: a set of ``n`` patches of ``size`` × ``size`` pixels, ordered by index."""

    format: Literal["patchset/1"]
    set_id: Sha256
    n: Annotated[int, Field(ge=1, le=MAX_PATCHES)]
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    seed: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    encoding: Encoding
    recipe: dict[str, Any]
    # fail_fast: pydantic would keep an error for each of a million wrong items.
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
            table = shard.parquet.bytes, max_table_bytes(shard.n)
            for key, num_bytes, limit in (("bytes", shard.bytes, most), ("parquet.bytes", *table)):
                if num_bytes > limit:
                    what = f"{num_bytes}, more than {shard.n} images have ({limit})"
                    raise ValueError(f"shards[{number}].{key} is {what}")
        if expected != self.n:
            raise ValueError(f"n is {self.n}, but the shards hold {counted(expected, 'patch')}")
        return self

    def to_json(self) -> bytes:
        """Return the bytes of ``manifest.json``: sorted keys, one-space indent, UTF-8, a final newline."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode("utf-8")


def shard_name(number: int) -> str:
    """Return the file name of shard ``number``, counted from 0."""
    return f"patches-{number:06d}.tar"


def patch_key(index: int) -> str:
    """Return the key of a patch: its index in nine digits, so that names sort like indices."""
    return f"{index:0{KEY_DIGITS}d}"


def max_table_bytes(n: int) -> int:
    """Return the maximum length in bytes of a table of ``n`` rows: 32 KiB a row, and 16 MiB."""
    return (n << 15) + (16 << 20)


def make_manifest(**fields: Any) -> Manifest:
    """Return a manifest with ``format`` and ``set_id`` filled in; ``fields`` are all others."""
    unsigned = {**fields, "format": FORMAT, "set_id": "0" * 64}
    dumped = _validate(json.dumps(unsigned, ensure_ascii=False), "new manifest").model_dump(mode="json")
    return _validate(json.dumps({**dumped, "set_id": set_id(dumped)}, ensure_ascii=False), "new manifest")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse the bytes of a ``manifest.json``; ``where`` names the file in errors."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise PatchSetError(f"{where}: holds a JSON {type(value).__name__}, expected an object")
    if (found := value.get("format")) != FORMAT:
        what = f"format is {found!r}, this version reads {FORMAT!r}"
        raise PatchSetError(f"{where}: {what}; another version of the package may read it")
    _require_bounded(value, where)
    computed = _computed_set_id(value, where)
    del value  # hundreds of megabytes, as much as the validation below takes
    manifest = _validate(data, where)
    if computed != manifest.set_id:
        what = f"set_id is {manifest.set_id}, but its content gives {computed}"
        raise PatchSetError(f"{where}: {what}: the manifest was edited or damaged; get it again from its source")
    return manifest


def _computed_set_id(value: dict[str, Any], where: str) -> str:
    """Return the ``set_id`` of a manifest that is not validated yet; "none" if it has no such form."""
    try:
        return set_id(value)
    except PatchSetError as error:
        raise PatchSetError(f"{where}: {error}") from error
    except (LookupError, TypeError, AttributeError):
        return "none"


def _require_entries(value: dict[str, Any], where: str) -> None:
    """Bound the entries of sources and shards, which hold only texts and numbers."""
    for name, most in (("sources", MAX_SOURCES), ("shards", MAX_SHARDS)):
        entries = value.get(name)
        if not isinstance(entries, list):
            continue  # validation reports the type
        if len(entries) > most:
            raise PatchSetError(f"{where}: {len(entries)} {name}, expected at most {most}")
        for number, entry in enumerate(entries):
            table = entry.get("parquet") if isinstance(entry, dict) else None
            for part in (part for part in (entry, table) if isinstance(part, dict | list)):
                at = f"{where}: {name}[{number}]"
                if isinstance(part, list) or len(part) > MAX_KEYS:
                    raise PatchSetError(f"{at} holds {len(part)} values, expected at most {MAX_KEYS} keys")
                for key, item in part.items():
                    if isinstance(item, dict | list) and key != "parquet":
                        raise PatchSetError(f"{at}: {key[:40]!a} is not a text or number")


def _require_bounded(value: dict[str, Any], where: str) -> None:
    """Bound what a manifest may hold, so that validating it takes bounded memory."""
    _require_entries(value, where)
    own, _ = measure([item for key, item in value.items() if key not in ("shards", "sources")])
    _, letters = measure([item for key, item in value.items() if key != "shards"])
    if own > MAX_OWN_VALUES or letters > MAX_LETTERS:
        what = f"{own} values outside sources and shards, and {letters} letters outside shards"
        raise PatchSetError(f"{where}: {what}, expected at most {MAX_OWN_VALUES} and {MAX_LETTERS}")


def _validate(data: bytes | str, where: str) -> Manifest:
    try:
        # JSON mode reads a JSON array as a tuple, and coerces nothing else.
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise PatchSetError(f"{where}: {describe(error, Manifest)}") from error
