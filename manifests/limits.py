"""Define limits and names of the format ``patchset/1``. This module imports no other library."""

from typing import Literal, get_args

KEY_DIGITS = 9  # digits of a patch's index in the name of its file inside a shard
MAX_PATCHES = 10**KEY_DIGITS  # maximum number of patches in a set
ImageFormat = Literal["png", "jpg", "webp", "ppm"]
IMAGE_FORMATS: tuple[str, ...] = get_args(ImageFormat)  # file suffixes of the image formats that a shard may contain


def max_patch_bytes(size: int) -> int:
    """Return the maximum length in bytes of one encoded patch of ``size`` × ``size`` pixels."""
    return 6 * size**2 + (1 << 20)  # twice the raw pixels, and 1 MiB of metadata
