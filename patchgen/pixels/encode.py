"""Encode patches as PNG, JPEG, WebP or PPM."""

from collections.abc import Callable
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Patch = npt.NDArray[np.uint8]
Encoder = Callable[[Patch], bytes]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Png(_Config):
    """Lossless PNG. ``compression`` is zlib's level; ``filter`` and ``strategy`` are libpng's and zlib's.

    At level 1, the strategy "huffman" with the Paeth filter is the fastest, and its files are not larger.
    """

    format: Literal["png"]
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    filter: Literal["none", "sub", "up", "average", "paeth", "adaptive"] = "paeth"
    strategy: Literal["default", "filtered", "huffman", "rle", "fixed"] = "huffman"


class Jpg(_Config):
    """Lossy JPEG. ``subsampling`` is that of the chroma planes."""

    format: Literal["jpg"]
    quality: Annotated[int, Field(ge=1, le=100)] = 75
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"


class Webp(_Config):
    """Lossless WebP."""

    format: Literal["webp"]


class Ppm(_Config):
    """Raw pixels after a short header (binary PPM, "P6"); at 32 px hardly larger than PNG, and much faster."""

    format: Literal["ppm"]


EncodingConfig = Annotated[Png | Jpg | Webp | Ppm, Field(discriminator="format")]

_SUBSAMPLING = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}
_PNG_FILTER = {
    "none": cv2.IMWRITE_PNG_FILTER_NONE,
    "sub": cv2.IMWRITE_PNG_FILTER_SUB,
    "up": cv2.IMWRITE_PNG_FILTER_UP,
    "average": cv2.IMWRITE_PNG_FILTER_AVG,
    "paeth": cv2.IMWRITE_PNG_FILTER_PAETH,
    "adaptive": cv2.IMWRITE_PNG_ALL_FILTERS,
}
_PNG_STRATEGY = {
    "default": cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
    "filtered": cv2.IMWRITE_PNG_STRATEGY_FILTERED,
    "huffman": cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    "rle": cv2.IMWRITE_PNG_STRATEGY_RLE,
    "fixed": cv2.IMWRITE_PNG_STRATEGY_FIXED,
}


def default_encoding(image_format: str) -> Png | Jpg | Webp | Ppm:
    """Return the encoding of a format with its default parameters."""
    return TypeAdapter(EncodingConfig).validate_python({"format": image_format})


def make_encoder(config: Png | Jpg | Webp | Ppm) -> Encoder:
    """Return a function from an RGB uint8 patch (H, W, 3) to its encoded bytes."""
    if isinstance(config, Ppm):
        return lambda patch: b"P6\n%d %d\n255\n" % patch.shape[1::-1] + patch.tobytes()
    extension, options = f".{config.format}", _options(config)

    def encode(patch: Patch) -> bytes:
        good, data = cv2.imencode(extension, cv2.cvtColor(patch, cv2.COLOR_RGB2BGR), options)
        if not good:
            raise RuntimeError(f"OpenCV could not encode a patch as {extension}")
        return data.tobytes()

    return encode


def _options(config: Png | Jpg | Webp) -> list[int]:
    """Return the parameters of an encoding as OpenCV takes them: pairs of a key and a value."""
    match config:
        case Png():
            filter_, strategy = _PNG_FILTER[config.filter], _PNG_STRATEGY[config.strategy]
            options = {
                cv2.IMWRITE_PNG_COMPRESSION: config.compression,
                cv2.IMWRITE_PNG_FILTER: filter_,
                cv2.IMWRITE_PNG_STRATEGY: strategy,
            }
        case Jpg():
            factor = _SUBSAMPLING[config.subsampling]
            options = {cv2.IMWRITE_JPEG_QUALITY: config.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR: factor}
        case Webp():
            options = {cv2.IMWRITE_WEBP_QUALITY: 101}  # above 100 means lossless
    return [number for pair in options.items() for number in pair]
