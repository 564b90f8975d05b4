"""Bring evaluation images to one size: the key ``eval.transform`` of a config."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
import torch
import torchvision
import torchvision.transforms.v2.functional as TF
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from distill.errors import DistillError
from distill.models.arch import split_arch
from manifests.support.validation import describe
from manifests.support.yaml_core import parse_yaml
from manifests.untrusted.decode import MAX_PIXELS, Pixels

MAX_RESIZED_PIXELS = MAX_PIXELS
"""Pixels of an image after resizing, before the crop. An image of 1×5000 px would become one of 256×1,280,000 px."""


class ImageShapeError(DistillError):
    """An image is too long for its width. The reader of the image adds its name to the message."""


class Fit(Protocol):
    """A function that resizes and crops an image, uint8 (H, W, 3), to ``size`` px."""

    @property
    def size(self) -> int: ...

    def __call__(self, image: Pixels, /) -> Pixels: ...


@dataclasses.dataclass(frozen=True)
class CenterFit:
    """Resize an image so that the short side is 8/7 of ``size`` px, and crop the center to ``size`` px.

    An image that has this size stays as it is.
    """

    size: int

    def __call__(self, image: Pixels, /) -> Pixels:
        if image.shape[:2] == (self.size, self.size):
            return image
        _require_bounded(image, short := round(self.size * 8 / 7))
        planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
        resized = TF.resize(planes, [short], antialias=True)
        fitted: Pixels = TF.center_crop(resized, [self.size, self.size]).permute(1, 2, 0).numpy()
        return fitted


@dataclasses.dataclass(frozen=True)
class TransformFit:
    """Apply the steps of a transform to an image with Pillow, as torchvision and timm do."""

    size: int
    steps: tuple[Callable[[Image.Image], Image.Image], ...]
    text: str  # describes the steps, for summaries
    short: int  # pixels of the short side after resizing, before the crop

    def __call__(self, image: Pixels, /) -> Pixels:
        _require_bounded(image, self.short)
        picture = Image.fromarray(image)
        for step in self.steps:
            picture = step(picture)
        fitted = np.asarray(picture)
        if fitted.shape != (self.size, self.size, 3):
            found = f"makes an image of {fitted.shape[1]}×{fitted.shape[0]} px, expected {self.size} px a side"
            raise DistillError(f"eval.transform: {self.text} {found}; set resize and crop instead")
        return fitted


class TransformConfig(BaseModel):
    """Resize and crop of evaluation images: those of the network's own weights, or given ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    like: Literal["torchvision", "timm"] | None = None
    "those of the network's default weights in this library; 'transform: timm' is short for it"
    resize: int | None = Field(default=None, ge=8, le=2048)
    "pixels of the short side before the crop; default: the size of the crop"
    crop: int | None = Field(default=None, ge=8, le=1024, description="width and height of the center crop in pixels")
    interpolation: Literal["bilinear", "bicubic", "nearest"] | None = None
    "of the resizing, antialiased as Pillow does it; default: bilinear"

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("resize", "crop", "interpolation") if getattr(self, name) is not None]
        if self.like is not None and given:
            raise ValueError(f"like and {given[0]} are both set; set only one")
        if self.like is None and self.crop is None:
            raise ValueError("crop is missing; set crop, or write torchvision or timm")
        if self.resize is not None and self.crop is not None and self.resize < self.crop:
            raise ValueError(f"resize is {self.resize}, expected at least crop, which is {self.crop}; raise resize")
        return self

    def fit(self, arch: str, key: str) -> TransformFit:
        """Return the transform for the network ``arch``. ``key`` is the name of the setting in messages."""
        arch, _ = split_arch(arch)
        if self.like == "torchvision":
            return _torchvision_fit(arch, key)
        if self.like == "timm":
            return _timm_fit(arch, key)
        crop = self.crop or 0
        return _resize_crop([self.resize or crop], crop, TF.InterpolationMode(self.interpolation or "bilinear"))


Transform = Annotated[
    TransformConfig, BeforeValidator(lambda value: {"like": value} if isinstance(value, str) else value)
]


def parse_transform(value: Any, key: str) -> TransformConfig:
    """Return the transform that a caller gives as a name or a dict. ``key`` is the name of the argument."""
    if not isinstance(value, str | Mapping):
        found = f"is {type(value).__name__}, expected 'torchvision', 'timm' or a dict such as {{'crop': 224}}"
        raise DistillError(f"{key}: {found}; correct it")
    try:
        return TransformConfig.model_validate({"like": value} if isinstance(value, str) else dict(value))
    except ValidationError as error:
        raise DistillError(f"{key}: {describe(error, TransformConfig)}; write torchvision, timm or crop") from error


def read_transform(text: str, key: str) -> TransformConfig:
    """Return the transform in the text of an option: a name, or a group of keys as YAML."""
    try:
        return parse_transform(parse_yaml(text), key)
    except ValueError as error:
        raise DistillError(f"{key}: {error}; write torchvision, timm or {{resize: 256, crop: 224}}") from error


def _require_bounded(image: Pixels, short: int) -> None:
    """Raise ImageShapeError if an image whose short side is resized to ``short`` px would need too much memory."""
    low, high = sorted(image.shape[:2])
    if (long := high * short // low) * short > MAX_RESIZED_PIXELS:
        found = (
            f"is {image.shape[1]}×{image.shape[0]} px, and has {long} px on the long side if resized to {short} px"
        )
        raise ImageShapeError(f"the image {found}, expected at most {MAX_RESIZED_PIXELS // short}; crop the image")


def _resize_crop(resize: list[int], crop: int, interpolation: TF.InterpolationMode) -> TransformFit:
    steps = (
        lambda image: TF.resize(image, resize, interpolation=interpolation),
        lambda image: TF.center_crop(image, [crop, crop]),
    )
    return TransformFit(crop, steps, f"resize {resize[0]}, crop {crop}, {interpolation.value}", resize[0])


def _torchvision_fit(arch: str, key: str) -> TransformFit:
    prefix, _, name = arch.partition("/")
    if prefix != "torchvision":
        raise DistillError(f"{key} torchvision: {arch} is no network of torchvision; set resize and crop instead")
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return _resize_crop(list(preset.resize_size), int(preset.crop_size[0]), preset.interpolation)


def _timm_fit(arch: str, key: str) -> TransformFit:
    prefix, _, name = arch.partition("/")
    if prefix != "timm":
        raise DistillError(f"{key} timm: {arch} is no network of timm; set resize and crop instead")
    try:
        import timm.data  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise DistillError(f"{key} timm: the package timm is not installed; run pip install timm") from error
    known = timm.get_pretrained_cfg(name)
    if known is None:
        raise DistillError(f"{key} timm: timm has no weights of {name!r}; set resize and crop instead")
    config = timm.data.resolve_data_config(pretrained_cfg=known.to_dict())
    steps = timm.data.create_transform(**config).transforms
    geometric = tuple(
        step
        for step in steps
        if type(step).__name__ in ("Resize", "CenterCrop", "ResizeKeepRatio", "CenterCropOrPad")
    )
    parts = (f"crop_pct {config['crop_pct']}", str(config["interpolation"]), str(config["crop_mode"]))
    size = int(config["input_size"][-1])
    return TransformFit(size, geometric, f"timm: {size}, {', '.join(parts)}", round(size / config["crop_pct"]))
