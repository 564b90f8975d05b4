"""Encode patches as PNG, JPEG, WebP or PPM."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import cv2
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from manifests.limits import ImageFormat
from patchgen.pixels.exact_math import Pixels


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Png(_Config):
    """Lossless PNG: zlib's ``compression`` level, libpng's ``filter`` and zlib's ``strategy``.

    At level 1, "huffman" with the Paeth filter is the fastest choice, and no other choice has smaller files.
    """

    format: Literal["png"]
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    filter: Literal["none", "sub", "up", "average", "paeth", "adaptive"] = "paeth"
    strategy: Literal["default", "filtered", "huffman", "rle", "fixed"] = "huffman"


class Jpg(_Config):
    """Lossy JPEG with its ``quality`` and chroma ``subsampling``."""

    format: Literal["jpg"]
    quality: Annotated[int, Field(ge=1, le=100)] = 75
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"


class Webp(_Config):
    """Lossless WebP."""

    format: Literal["webp"]


class Ppm(_Config):
    """Raw pixels after a short header (binary PPM, "P6"). At 32 px it is much faster than PNG and hardly larger."""

    format: Literal["ppm"]


class AsFound(_Config):
    """The encoding of files that ``patchgen pack`` copies. Only the format is known."""

    format: ImageFormat


EncodingConfig = Annotated[Png | Jpg | Webp | Ppm, Field(discriminator="format")]

_PNG_FILTERS = ("none", "sub", "up", "average", "paeth")  # libpng's flags are 8, 16, 32 and so on
_PNG_STRATEGIES = ("default", "filtered", "huffman", "rle", "fixed")  # numbered by zlib and OpenCV in this order


class RecordedRecipe(_Config):
    """The base of all recipes. A manifest has two parts of a recipe: the encoding, and what determines pixels."""

    @property
    def profile(self) -> str:
        """Return ``portable`` if all CPUs produce the same bytes, else ``fast``."""
        return "portable"

    def pixels_json(self) -> dict[str, Any]:
        """Return the part of the recipe that determines pixels: all keys except the encoding."""
        return self.model_dump(mode="json", exclude={"encoding"}) | {"profile": self.profile}

    def encoding_json(self) -> dict[str, Any]:
        """Return the encoding, which determines how pixels become bytes."""
        return self.model_dump(mode="json")["encoding"]


def default_encoding(image_format: str) -> Png | Jpg | Webp | Ppm:
    """Return the encoding of a format with its default parameters."""
    return TypeAdapter(EncodingConfig).validate_python({"format": image_format})


def make_encoder(config: Png | Jpg | Webp | Ppm) -> Callable[[Pixels], bytes]:
    """Return a function that encodes an RGB uint8 patch (H, W, 3)."""
    if isinstance(config, Ppm):
        return lambda patch: b"P6\n%d %d\n255\n" % patch.shape[1::-1] + patch.tobytes()
    extension, options = f".{config.format}", _options(config)

    def encode(patch: Pixels) -> bytes:
        good, data = cv2.imencode(extension, cv2.cvtColor(patch, cv2.COLOR_RGB2BGR), options)
        if not good:
            raise RuntimeError(f"OpenCV could not encode a patch as {extension}; reinstall opencv-python-headless")
        return data.tobytes()

    return encode


def _options(config: Png | Jpg | Webp) -> list[int]:
    """Return the parameters of an encoding for OpenCV: a list of alternating keys and values."""
    if isinstance(config, Png):
        every = config.filter == "adaptive"
        filters = cv2.IMWRITE_PNG_ALL_FILTERS if every else 8 << _PNG_FILTERS.index(config.filter)
        options = [cv2.IMWRITE_PNG_COMPRESSION, config.compression, cv2.IMWRITE_PNG_FILTER, filters]
        return [*options, cv2.IMWRITE_PNG_STRATEGY, _PNG_STRATEGIES.index(config.strategy)]
    if isinstance(config, Jpg):
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{config.subsampling.replace(':', '')}")
        return [cv2.IMWRITE_JPEG_QUALITY, config.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100 means lossless
