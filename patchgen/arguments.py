"""Check the arguments that a Python program gives: numbers, paths, formats and images."""

import contextlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from manifests.errors import DECODE_ERRORS
from manifests.format.digest import pixel_digest
from manifests.limits import IMAGE_FORMATS
from manifests.remote.urls import is_url
from manifests.support.files import expand_home
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SIDE
from patchgen.pixels.exact_math import Pixels
from patchgen.sources.photo import Photo, read_photo

Given = str | os.PathLike[str] | Image.Image | Pixels


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """Return the value of the argument ``name`` as an int. A float such as 1e6 is a whole number too.

    Raises:
        PatchgenError: the value is no whole number from ``low`` to ``high``.
    """
    number = low - 1
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    elif not isinstance(value, bool) and hasattr(value, "__index__"):
        with contextlib.suppress(TypeError):  # an array of one number has this method, and refuses to be an index
            number = operator.index(value)
    if not low <= number <= high:
        what = f"{name} is {value!r}, expected a whole number from {low} to {high}"
        raise PatchgenError(f"{what}; give another {name}")
    return number


def image_format(value: Any) -> str | None:
    """Return the argument ``format``: the name of an image format, or None for the recipe's format."""
    if value is not None and not (isinstance(value, str) and value in IMAGE_FORMATS):
        raise PatchgenError(f"format is {value!r}, expected one of {', '.join(IMAGE_FORMATS)}; give one of these")
    return value


def local_path(value: Any, what: str) -> Path:
    """Return a path with ``~`` expanded. ``what`` names the argument in errors.

    Raises:
        PatchgenError: the value is a URL, or no path.
    """
    if not isinstance(value, str | os.PathLike):
        raise PatchgenError(f"{what} is a {type(value).__name__}, expected a path; give a text or a Path")
    text = os.fsdecode(value)
    if is_url(text):
        raise PatchgenError(f"{what} is the URL {text}, expected a path; use a local path, or the command line")
    try:
        return Path(expand_home(text))
    except ValueError as error:
        raise PatchgenError(f"{what}: {error}") from error


def each_image(given: Given | Sequence[Given]) -> list[Path | Pixels]:
    """Return the images of an argument, which is one image or a sequence: paths, and RGB uint8 arrays (H, W, 3)."""
    items = list(given) if isinstance(given, list | tuple) else [given]
    if not items:
        raise PatchgenError("image is an empty list, expected at least one photo; give a path")
    return [local_path(item, "image") if isinstance(item, str | os.PathLike) else _pixels(item) for item in items]


def open_image(image: Path | Pixels) -> Photo:
    """Return the photo of a path or an array. The photo of an array has no path and no file digest."""
    if isinstance(image, Path):
        return read_photo(image)
    return Photo(path=Path("image"), pixels=image, sha256="", pixels_sha256=pixel_digest(image).hex())


def _pixels(item: Any) -> Pixels:
    """Return a copy of the pixels of a PIL image or an array."""
    if isinstance(item, Image.Image):
        if item.mode.startswith(("I", "F")):  # Pillow would clip these
            what = f"image is a PIL image of mode {item.mode}, expected 8 bits a channel"
            raise PatchgenError(f"{what}; give the path of the file, or convert the image to RGB")
        try:  # an image that Pillow opened from a file is decoded here
            item = np.asarray(ImageOps.exif_transpose(item).convert("RGB"))
        except DECODE_ERRORS as error:
            what = f"image is a PIL image that cannot be decoded: {str(error) or type(error).__name__}"
            raise PatchgenError(f"{what}; give another image, or the path of its file") from error
    if not isinstance(item, np.ndarray):
        what = f"image is a {type(item).__name__}, expected a path, a PIL image or an array"
        raise PatchgenError(f"{what}; convert it to a NumPy array of uint8 (height, width, 3)")
    if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or not 1 <= min(item.shape) <= MAX_SIDE:
        what = f"image is an array of {item.dtype} of shape {item.shape}, expected uint8 (height, width, 3) in RGB"
        raise PatchgenError(f"{what}; convert the array")
    if max(item.shape) > MAX_SIDE:
        what = f"image has {item.shape[1]}×{item.shape[0]} pixels, expected at most {MAX_SIDE} a side"
        raise PatchgenError(f"{what}; scale it down")
    return np.array(item, order="C")
