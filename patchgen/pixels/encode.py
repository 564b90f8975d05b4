"""Patches to bytes. Each encoder is a factory that returns a pure function, and owns its parameters."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Patch = npt.NDArray[np.uint8]
Encoder = Callable[[Patch], bytes]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Png(_Config):
    """Lossless. ``compression`` is zlib's level; ``filter`` and ``strategy`` are libpng's and zlib's.

    Of the strategies at level 1, Huffman codes alone behind the Paeth filter are the fastest, and no larger.
    """

    format: Literal["png"]
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    filter: Literal["none", "sub", "up", "average", "paeth", "adaptive"] = "paeth"
    strategy: Literal["default", "filtered", "huffman", "rle", "fixed"] = "huffman"


class Jpg(_Config):
    """Lossy. ``subsampling`` is that of the chroma planes."""

    format: Literal["jpg"]
    quality: Annotated[int, Field(ge=1, le=100)] = 75
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"


class Webp(_Config):
    """Lossless WebP."""

    format: Literal["webp"]


class Ppm(_Config):
    """Raw pixels behind a short header (binary PPM, "P6"); at 32 px hardly larger than PNG, and far faster."""

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
    """The encoding of a format with its default parameters."""
    return TypeAdapter(EncodingConfig).validate_python({"format": image_format})


def make_encoder(config: Png | Jpg | Webp | Ppm) -> Encoder:
    """A function from an RGB uint8 patch (H, W, 3) to its encoded bytes."""
    if isinstance(config, Ppm):
        return _encode_ppm
    extension, options = f".{config.format}", _options(config)

    def encode(patch: Patch) -> bytes:
        good, data = cv2.imencode(extension, cv2.cvtColor(patch, cv2.COLOR_RGB2BGR), options)
        if not good:
            raise RuntimeError(f"OpenCV could not encode a patch as {extension}")
        return data.tobytes()

    return encode


def _encode_ppm(patch: Patch) -> bytes:
    height, width, _ = patch.shape
    return b"P6\n%d %d\n255\n" % (width, height) + patch.tobytes()


def _options(config: Any) -> Sequence[int]:
    match config:
        case Png():
            return [
                cv2.IMWRITE_PNG_COMPRESSION,
                config.compression,
                cv2.IMWRITE_PNG_FILTER,
                _PNG_FILTER[config.filter],
                cv2.IMWRITE_PNG_STRATEGY,
                _PNG_STRATEGY[config.strategy],
            ]
        case Jpg():
            factor = _SUBSAMPLING[config.subsampling]
            return [cv2.IMWRITE_JPEG_QUALITY, config.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        case Webp():
            return [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100 means lossless
        case _:
            raise TypeError(f"no options for {config!r}")
