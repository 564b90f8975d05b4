"""Pack images into a set: copy the files if all are squares of one size and format, else scale all images."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from manifests.errors import PatchSetError
from manifests.foreign.image_files import StoredImage, pixels_of, read_stored
from manifests.format.digest import pixel_digest
from manifests.format.schema import PACKED
from manifests.limits import ImageFormat
from manifests.untrusted.images import decode_patch, size_and_storable_format
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SIDE, MAX_SIZE, MIN_SIZE
from patchgen.pixels.encode import AsFound, EncodingConfig, RecordedRecipe, default_encoding, make_encoder
from patchgen.pixels.exact_math import Pixels
from patchgen.pixels.geometry import Geometry, build_pyramids, place
from patchgen.pixels.randomness import DRAWS
from patchgen.pixels.warp import Warp

_REMEDY = "remove or replace this image, then pack into a new folder"
_LARGEST_SQUARE = Geometry(
    crop=1, area=(1, 1), aspect=(1, 1), oversize=1, rotation=0, shear=0, corners="photo"
)  # draws of 0.5 place this crop in the middle


class PackRecipe(RecordedRecipe):
    """The recipe of a packed set. ``fit``: ``none`` if files are copied, ``centre`` if squares are scaled."""

    name: Literal["packed"] = PACKED
    version: Literal[1] = 1
    fit: Literal["none", "centre"]
    encoding: AsFound | EncodingConfig


@dataclass(frozen=True, kw_only=True)
class Form:
    """The size and format of an image."""

    width: int  # pixels
    height: int
    format: str | None  # None if a set may not contain the bytes of the file


def form_of(content: bytes | Pixels, where: str) -> Form:
    """Return the form of an image. ``content`` is its file's bytes or its pixels. ``where`` names it in errors."""
    if not isinstance(content, bytes):
        return Form(width=content.shape[1], height=content.shape[0], format=None)
    try:
        (width, height), image_format = size_and_storable_format(content, where)
    except PatchSetError as error:
        raise PatchgenError(f"{error}; {_REMEDY}") from error
    return Form(width=width, height=height, format=image_format)


def choose(
    forms: set[Form], size: int | None, image_format: ImageFormat | None, where: str
) -> tuple[PackRecipe, int]:
    """Return the recipe for packing images of these forms, and the size of the patches in pixels.

    Files are copied if all have one square size and one format that a set may contain, and if options ``size`` and
    ``image_format`` are None or equal to that size and format. ``where`` names the images in errors.
    """
    sizes = {(form.width, form.height) for form in forms}
    width, height = min(sizes)
    square = width if len(sizes) == 1 and width == height else None
    if size is None and square is None:
        of = f"{len(sizes)} sizes, for example" if len(sizes) > 1 else "the size"
        what = f"the images have {of} {width}×{height} px, expected squares of one size"
        raise PatchgenError(f"{where}: {what}; give --size to scale them")
    chosen = size or square or 0
    if not MIN_SIZE <= chosen <= MAX_SIZE:
        what = f"the images have {chosen} px a side, expected {MIN_SIZE} to {MAX_SIZE}"
        raise PatchgenError(f"{where}: {what}; give --size to scale them")
    formats = {form.format for form in forms}
    found = next(iter(formats))
    if chosen == square and len(formats) == 1 and found is not None and image_format in (None, found):
        return PackRecipe(fit="none", encoding=AsFound.model_validate({"format": found})), chosen
    return PackRecipe(fit="centre", encoding=default_encoding(image_format or "png")), chosen


class PackMaker:
    """Makes the patches of one shard from ``items``. ``digests`` are the raw SHA-256 that the items must have."""

    def __init__(self, recipe: PackRecipe, size: int, items: Sequence[StoredImage], digests: Sequence[bytes]) -> None:
        self._recipe, self._size = recipe, size
        self._items, self._digests = items, digests
        self._encode = None if isinstance(recipe.encoding, AsFound) else make_encoder(recipe.encoding)

    def encoded(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield each patch as a list of one pair: its encoded bytes and its raw pixel digest."""
        for item, digest in zip(self._items, self._digests, strict=True):
            content = read_stored(item)
            if content_digest(content) != digest:
                raise PatchgenError(f"{item.where}: the image changed while it was packed; pack into a new folder")
            try:
                packed = self._pack(content, item.where)
            except PatchSetError as error:
                raise PatchgenError(f"{error}; {_REMEDY}") from error
            yield [packed]

    def columns(self) -> dict[str, Any]:
        """Return the column ``file``: the paths of the images. Bytes of a path that are not UTF-8 are escaped."""
        names = (item.name.encode("utf-8", "backslashreplace") for item in self._items)
        return {"file": [name.decode("utf-8") for name in names]}

    def _pack(self, content: bytes | Pixels, where: str) -> tuple[bytes, bytes]:
        if self._encode is None:
            assert isinstance(content, bytes)  # noqa: S101 - ``choose`` copies only files
            return content, pixel_digest(decode_patch(content, where, self._size, self._recipe.encoding.format))
        pixels = pixels_of(content, where)
        if max(pixels.shape) > MAX_SIDE:
            height, width = pixels.shape[:2]
            what = f"the image has {width}×{height} pixels, expected at most {MAX_SIDE} a side"
            raise PatchgenError(f"{where}: {what}; scale the image down")
        patch = fit(pixels, self._size)
        return self._encode(patch), pixel_digest(patch)


def content_digest(content: bytes | Pixels) -> bytes:
    """Return the raw SHA-256 of the bytes of a file, or of the pixels of an image."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return hashlib.sha256(data).digest()


def fit(pixels: Pixels, size: int) -> Pixels:
    """Return the largest centered square of an image, scaled to (size, size, 3) in the same way as photo patches."""
    if pixels.shape[:2] == (size, size):
        return pixels
    pyramids = build_pyramids(_LARGEST_SQUARE, size, [pixels])
    places = place(_LARGEST_SQUARE, size, pyramids, np.full((1, DRAWS), 0.5))
    return Warp(_LARGEST_SQUARE, size, pyramids, places)[0]
