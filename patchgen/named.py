"""Albumentations transforms named in a recipe: their configuration, and which of them are exact.

Nothing here imports Albumentations; ``transforms`` does.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PORTABLE = frozenset({"HorizontalFlip", "InvertImg", "Posterize", "Solarize", "ToGray", "Transpose", "VerticalFlip"})
"""Transforms that only move bytes, look them up or weigh them in integers. Tests build with each of them at every
dispatch level of the CPU; any other name makes a recipe ``fast``: the same bytes are not promised elsewhere."""


class NamedConfig(BaseModel):
    """An Albumentations transform by its class name; keys besides ``name`` and ``p`` are its own arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,60}$")]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches it is applied to")] = 0.5

    @property
    def arguments(self) -> dict[str, Any]:
        """The transform's own arguments."""
        return self.model_extra or {}
