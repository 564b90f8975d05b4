"""Bounds and names of the format ``patchset/1`` that the command line states, importable without any library."""

from typing import Literal, get_args

KEY_DIGITS = 9
"""Of a patch's number in a member's name."""
MAX_PATCHES = 10**KEY_DIGITS
ImageFormat = Literal["png", "jpg", "webp", "ppm"]
IMAGE_FORMATS: tuple[str, ...] = get_args(ImageFormat)
