"""Albumentations transforms named in a recipe: their configuration, and which of them are exact.

Nothing here imports Albumentations; ``transforms`` does.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

PORTABLE = frozenset({"HorizontalFlip", "InvertImg", "Posterize", "Solarize", "ToGray", "Transpose", "VerticalFlip"})
"""Transforms that only move bytes, look them up or weigh them in integers. Tests build with each of them at every
dispatch level of the CPU; any other name makes a recipe ``fast``: the same bytes are not promised elsewhere."""


NOT_TAKEN = frozenset(
    {"FDA", "HistogramMatching", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "TextImage"}
)
"""Transforms that read other images or fonts, by names that whoever wrote a recipe or manifest chooses."""


class NamedConfig(BaseModel):
    """An Albumentations transform by its class name; keys besides ``name`` and ``p`` are its own arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,60}$")]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches it is applied to")] = 0.5

    @field_validator("name")
    @classmethod
    def _taken(cls, name: str) -> str:
        if name in NOT_TAKEN:
            raise ValueError(f"{name} reads files besides the photos, so no recipe may have it; leave it out")
        return name

    @property
    def arguments(self) -> dict[str, Any]:
        """The transform's own arguments."""
        return self.model_extra or {}
