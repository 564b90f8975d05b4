"""Apply Albumentations transforms as steps of a recipe. The library is imported on first use, because it is slow."""

import functools
import inspect
import json
import os
import random
import warnings
from difflib import get_close_matches
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from patchgen.errors import PatchgenError
from patchgen.pixels.exact_math import Floats, Pixels
from patchgen.pixels.randomness import generator

PORTABLE = frozenset({"HorizontalFlip", "InvertImg", "Posterize", "Solarize", "ToGray", "Transpose", "VerticalFlip"})
"""Transforms with the same result on every CPU. Tests check each transform with each instruction set of the CPU.

With any other transform the profile of a recipe is ``fast``: other machines may produce other bytes.
"""
REFUSED = frozenset(
    {"FDA", "HistogramMatching", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "TextImage"}
)
"""Transforms that read other images or fonts. An untrusted recipe could choose these files."""
_LONGEST_RECORDED = 16


class NamedConfig(BaseModel):
    """An Albumentations transform in a recipe, with its arguments. A share ``p`` of the patches is transformed."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,60}$")]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches that are transformed")] = 0.5

    @field_validator("name")
    @classmethod
    def _allowed(cls, name: str) -> str:
        if name in REFUSED:
            raise ValueError(f"{name} reads other files than the photos, which is not allowed")
        return name


class NamedStep:
    """Applies an Albumentations transform to patches with consecutive indices.

    For each patch, the two random generators of the transform are seeded from (seed, stream, index). In ``columns``,
    ``applied`` is true for patches to transform; ``params`` contains the values that Albumentations drew, as JSON.
    """

    def __init__(self, config: NamedConfig, draws: Floats, *, seed: int, stream: int, first_index: int) -> None:
        self.name = config.name
        self._transform = _construct(config, "augment")
        self._generator = functools.partial(generator, seed, stream)
        self._first_index = first_index
        self._python_seeds = (draws[:, 1] * 2.0**53).astype(np.int64)
        self.columns: dict[str, Any] = {"applied": draws[:, 0] < config.p, "params": np.full(len(draws), None)}

    def __call__(self, patches: list[Pixels], start: int) -> None:
        """Transform in place patches whose ``applied`` is true. ``patches[0]`` is row ``start`` of ``columns``."""
        for i in np.flatnonzero(self.columns["applied"][start : start + len(patches)]).tolist():
            position, index = start + i, self._first_index + start + i
            python_random = random.Random(int(self._python_seeds[position]))  # noqa: S311 - no secret
            self._transform.set_random_state(self._generator(index), python_random)
            patches[i] = _apply(self._transform, patches[i], f"patch {index}")
            self.columns["params"][position] = json.dumps(_plain(self._transform.get_applied_params()))


def probe(config: NamedConfig, size: int, where: str) -> None:
    """Check that a transform returns RGB uint8 patches of ``size`` px. ``where`` names the transform in errors."""
    _apply(_construct(config, where), np.zeros((size, size, 3), dtype=np.uint8), f"{where}: a black patch")


def resolve(config: NamedConfig, where: str) -> NamedConfig:
    """Return ``config`` with the default arguments of its transform. ``where`` names the transform in errors."""
    transform = _construct(config, where)
    arguments = {k: _plain(v) for k, v in transform.get_transform_init_args().items() if k not in ("p", "name")}
    whole = NamedConfig(name=config.name, p=config.p, **arguments)
    try:
        _construct(whole, where)
    except PatchgenError:
        return config  # a few transforms refuse the arguments that they report
    return whole


def _apply(transform: Any, patch: Pixels, which: str) -> Pixels:
    name = type(transform).__name__
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            result = transform(image=patch)["image"]
    except Exception as error:  # Albumentations may raise any exception
        raise PatchgenError(f"{which}: {name} fails: {_line(error)}; correct the recipe") from error
    if result.shape != patch.shape or result.dtype != patch.dtype:
        raise PatchgenError(
            f"{which}: {name} returns {result.dtype} of shape {result.shape}, "
            f"expected uint8 of shape {patch.shape}; remove {name} from the recipe"
        )
    return result


@functools.cache
def _transforms() -> dict[str, Any]:
    """Return the classes of Albumentations that transform single images, by name."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import would send a request to PyPI
    import albumentations  # noqa: PLC0415 - it takes three seconds, and most recipes do not need it

    kinds = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    classes = inspect.getmembers(albumentations, inspect.isclass)
    return {n: c for n, c in classes if issubclass(c, kinds) and c not in (*kinds, albumentations.Lambda)}


def _construct(config: NamedConfig, where: str) -> Any:
    """Return the transform of ``config`` with p = 1, because ``NamedStep`` draws which patches to transform."""
    transforms = _transforms()
    if config.name not in transforms:
        near = get_close_matches(config.name, [*transforms, "ColorJitter"], n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one from the documentation of Albumentations"
        raise PatchgenError(f"{where}: Albumentations has no transform {config.name!r} for single images; {hint}")
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            transform = transforms[config.name](p=1.0, **(config.model_extra or {}))
        except Exception as error:
            raise PatchgenError(f"{where}: {config.name}: {_line(error)}; correct the recipe") from error
    if unknown := [str(w.message) for w in caught if "not valid for transform" in str(w.message)]:
        raise PatchgenError(f"{where}: {unknown[0]}; correct the recipe")
    return transform


def _line(error: Exception) -> str:
    origin = error.__cause__ or error.__context__ or error
    if isinstance(origin, ValidationError):  # from Albumentations, which uses pydantic
        fault = origin.errors(include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc'][:1]))}: {fault['msg']}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _plain(value: Any) -> Any:
    """Convert a parameter to a JSON value. A large array becomes a text that names the array's shape."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k != "shape"}
    if isinstance(value, np.ndarray) and value.size > _LONGEST_RECORDED:
        return f"array of shape {value.shape}"
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
