"""The ``augment`` group of a config."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0, le=1000)]
_CUTMIX = "alpha of CutMix, which draws the box area from Beta(alpha, alpha); 0: no CutMix"


def _strength(what: str) -> Any:
    return Field(ge=0, le=10, description=f"s: {what} is multiplied by a factor from [max(0, 1 - s), 1 + s]")


class JitterConfig(BaseModel):
    """Color jitter of torchvision. Strengths and the order of the four operations are drawn for each sample."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    p: Share = Field(default=1.0, description="share of images that are jittered")
    brightness: Annotated[float, _strength("brightness")] = 0.0
    contrast: Annotated[float, _strength("contrast")] = 0.0
    saturation: Annotated[float, _strength("saturation")] = 0.0
    hue: float = Field(default=0.0, ge=0, le=0.5, description="the hue turns by up to ± this part of the circle")


class AugmentConfig(BaseModel):
    """The augmentation of a batch, in this order: crop and flip, colors, mixing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    pad_crop: int = Field(default=4, ge=0, le=64, description="pixels of black padding before the crop")
    resized_crop: tuple[float, float] | None = None
    "smallest and largest share of the area of a resized crop (bicubic, antialiased); replaces pad_crop"
    size: int | None = Field(default=None, ge=8, le=1024, description="width and height in pixels after resized_crop")
    flip: bool = Field(default=True, description="mirror each patch with probability 1/2")
    jitter: JitterConfig | None = None
    "changes of brightness, contrast, saturation and hue, in an order drawn for each sample"
    grayscale: Share = Field(default=0.0, description="share of images turned gray")
    solarize: Share = Field(default=0.0, description="share of images whose values from 128 up are inverted")
    cutmix_alpha: Alpha = Field(default=0.25, description=_CUTMIX)
    cutmix_box: Literal["batch", "sample"] = Field(default="batch", description="one box per batch, or per sample")
    mixup_alpha: Alpha = 0.0
    "alpha of MixUp, which draws the weight from Beta(alpha, alpha); 0: no MixUp"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cutmix_box == "sample" and not self.cutmix_alpha:
            raise ValueError("cutmix_box sample needs a cutmix_alpha above 0; set cutmix_alpha, or omit cutmix_box")
        if self.resized_crop is None and self.size is not None:
            raise ValueError("size needs resized_crop; set resized_crop, or omit size")
        if self.resized_crop is not None:
            low, high = self.resized_crop
            if not 0 < low <= high <= 1:
                raise ValueError(f"resized_crop is [{low}, {high}], expected 0 < low <= high <= 1; correct the pair")
            if self.pad_crop:
                raise ValueError(f"resized_crop replaces pad_crop, which is {self.pad_crop}; set pad_crop to 0")
        return self

    def output_size(self, size: int) -> int:
        """Return the width and height in pixels of an augmented image, if the image was ``size`` px before."""
        return self.size or size


class SupervisedAugmentConfig(AugmentConfig):
    """The augmentation of a batch, in this order: crop and flip, colors, mixing. The default has no mixing."""

    cutmix_alpha: Alpha = Field(default=0.0, description=_CUTMIX)
