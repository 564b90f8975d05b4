"""Configure Albumentations transforms of a recipe, and list the exact ones, without importing Albumentations."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

PORTABLE = frozenset({"HorizontalFlip", "InvertImg", "Posterize", "Solarize", "ToGray", "Transpose", "VerticalFlip"})
"""Transforms that only move bytes, look them up or weigh them in integers. Tests build with each of them at every
dispatch level of the CPU. Any other name makes a recipe ``fast``: other machines may give other bytes."""
NOT_TAKEN = frozenset(
    {"FDA", "HistogramMatching", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "TextImage"}
)
"""Transforms that read other images or fonts, whose names an untrusted recipe or manifest could choose."""


class NamedConfig(BaseModel):
    """An Albumentations transform by its class name; keys besides ``name`` and ``p`` are its own arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,60}$")]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches it is applied to")] = 0.5

    @field_validator("name")
    @classmethod
    def _taken(cls, name: str) -> str:
        if name in NOT_TAKEN:
            raise ValueError(f"{name} reads files besides the photos, which a recipe must not; leave it out")
        return name

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the transform's own arguments."""
        return self.model_extra or {}
