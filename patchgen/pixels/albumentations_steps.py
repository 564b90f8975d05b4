"""Apply Albumentations transforms as steps of a recipe. The library is imported late, which takes seconds."""

import functools
import inspect
import json
import os
import random
import warnings
from difflib import get_close_matches
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from patchgen.errors import PatchgenError
from patchgen.pixels.color_jitter import Patch
from patchgen.pixels.exact_math import Floats
from patchgen.pixels.randomness import generator

PORTABLE = frozenset({"HorizontalFlip", "InvertImg", "Posterize", "Solarize", "ToGray", "Transpose", "VerticalFlip"})
"""Transforms that only move bytes, look them up or weigh them in integers. Tests build with each of them at every
dispatch level of the CPU. Any other name makes a recipe ``fast``: other machines may give other bytes."""
NOT_TAKEN = frozenset(
    {"FDA", "HistogramMatching", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "TextImage"}
)
"""Transforms that read other images or fonts, whose names an untrusted recipe or manifest could choose."""
_LONGEST_RECORDED = 16


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


class NamedStep:
    """The step of a recipe that applies an Albumentations transform to the patches of one range of indices.

    Each patch seeds the transform's two generators, so its result depends only on (seed, stream, index). ``columns``
    are ``applied``, and ``params``: what Albumentations drew, as JSON, with large arrays as their shape.
    """

    def __init__(self, config: NamedConfig, draws: Floats, *, seed: int, stream: int, first_index: int) -> None:
        self.name = config.name
        self._transform = _construct(config, "augment")
        self._generator = functools.partial(generator, seed, stream)
        self._first_index = first_index
        self._python_seeds = (draws[:, 1] * 2.0**53).astype(np.int64)
        self.columns: dict[str, npt.NDArray[Any]] = {
            "applied": draws[:, 0] < config.p,
            "params": np.full(len(draws), None, dtype=object),
        }

    def __call__(self, patches: list[Patch], start: int) -> None:
        """Transform ``patches`` in place; the first of them has position ``start`` in the range."""
        for i in np.flatnonzero(self.columns["applied"][start : start + len(patches)]).tolist():
            position, index = start + i, self._first_index + start + i
            python_random = random.Random(int(self._python_seeds[position]))  # noqa: S311 - no secret
            self._transform.set_random_state(self._generator(index), python_random)
            patches[i] = _apply(self._transform, patches[i], f"patch {index}")
            self.columns["params"][position] = json.dumps(_plain(self._transform.get_applied_params()))


def probe(config: NamedConfig, size: int, where: str) -> None:
    """Check that a transform returns RGB uint8 patches of ``size`` px; ``where`` names it in errors."""
    _apply(_construct(config, where), np.zeros((size, size, 3), dtype=np.uint8), f"{where}: a black patch")


def resolve(config: NamedConfig, where: str) -> NamedConfig:
    """Return ``config`` with all arguments of its transform, including defaults; ``where`` names it in errors."""
    transform = _construct(config, where)
    arguments = {k: _plain(v) for k, v in transform.get_transform_init_args().items() if k not in ("p", "name")}
    whole = NamedConfig(name=config.name, p=config.p, **arguments)
    try:
        _construct(whole, where)
    except PatchgenError:
        return config  # a few transforms do not accept the arguments that they report
    return whole


def _apply(transform: Any, patch: Patch, which: str) -> Patch:
    name = type(transform).__name__
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            result = transform(image=patch)["image"]
    except Exception as error:  # a library may raise anything over a recipe's arguments
        raise PatchgenError(f"{which}: {name} fails on it: {_line(error)}; leave it out") from error
    if result.shape != patch.shape or result.dtype != patch.dtype:
        raise PatchgenError(
            f"{which}: {name} returns {result.dtype} of shape {result.shape}, "
            f"expected uint8 of shape {patch.shape}; leave it out"
        )
    return result


@functools.cache
def _transforms() -> dict[str, Any]:
    """Return Albumentations' transforms of single images by name."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would query the network
    import albumentations  # noqa: PLC0415 - it takes three seconds, and most recipes need none

    kinds = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    classes = inspect.getmembers(albumentations, inspect.isclass)
    return {n: c for n, c in classes if issubclass(c, kinds) and c not in (*kinds, albumentations.Lambda)}


def _construct(config: NamedConfig, where: str) -> Any:
    """Return the transform with p = 1: ``NamedStep`` draws which patches it is applied to."""
    transforms = _transforms()
    if config.name not in transforms:
        near = get_close_matches(config.name, [*transforms, "ColorJitter"], n=1)
        hint = f"did you mean {near[0]}?" if near else "see the list in its documentation"
        raise PatchgenError(f"{where}: Albumentations has no transform {config.name!r} of single images; {hint}")
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            transform = transforms[config.name](p=1.0, **(config.model_extra or {}))
        except Exception as error:
            raise PatchgenError(f"{where}: {config.name}: {_line(error)}") from error
    if unknown := [str(w.message) for w in caught if "not valid for transform" in str(w.message)]:
        raise PatchgenError(f"{where}: {unknown[0]}")
    return transform


def _line(error: Exception) -> str:
    origin = error.__cause__ or error.__context__ or error
    if isinstance(origin, ValidationError):  # Albumentations checks its arguments with pydantic
        fault = origin.errors(include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc'][:1]))}: {fault['msg']}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _plain(value: Any) -> Any:
    """Return a drawn parameter as a JSON value; a large array becomes its shape."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k != "shape"}
    if isinstance(value, np.ndarray) and value.size > _LONGEST_RECORDED:
        return f"array of shape {value.shape}"
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
