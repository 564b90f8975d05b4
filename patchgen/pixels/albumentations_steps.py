"""Apply Albumentations transforms as steps of a recipe.

Importing this module imports Albumentations, which takes three seconds. A recipe without such steps never does.
"""

import inspect
import json
import os
import random
import warnings
from difflib import get_close_matches
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at import, which would query the network

import albumentations
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from patchgen.errors import PatchgenError
from patchgen.pixels.color_jitter import Floats, Patch
from patchgen.pixels.portable_transforms import NamedConfig
from patchgen.pixels.randomness import generator

_LONGEST_RECORDED = 16


class NamedStep:
    """The step of a recipe that applies an Albumentations transform to the patches of one range of indices.

    Each patch seeds the transform's two generators, so its result depends only on (seed, stream, index).
    """

    def __init__(self, config: NamedConfig, draws: Floats, *, seed: int, stream: int, first_index: int) -> None:
        self.name = config.name
        self._transform = _construct(config, "augment")
        self._seed, self._stream, self._first_index = seed, stream, first_index
        self._python_seeds = (draws[:, 1] * 2.0**53).astype(np.int64)
        self._applied = draws[:, 0] < config.p
        self._params = np.full(len(draws), None, dtype=object)

    def __call__(self, patches: list[Patch], start: int) -> None:
        """Transform ``patches`` in place; the first of them has position ``start`` in the range."""
        for i in np.flatnonzero(self._applied[start : start + len(patches)]).tolist():
            position, index = start + i, self._first_index + start + i
            self._transform.set_random_state(
                generator(self._seed, self._stream, index),
                random.Random(int(self._python_seeds[position])),  # noqa: S311 - no secret
            )
            patches[i] = _apply(self._transform, patches[i], f"patch {index}")
            self._params[position] = json.dumps(_plain(self._transform.get_applied_params()))

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``applied``, and ``params``: what Albumentations drew, as JSON, with large arrays as their shape."""
        return {"applied": self._applied, "params": self._params}


def probe(config: NamedConfig, size: int, where: str) -> None:
    """Try a transform on a patch of ``size`` px; ``where`` names it in errors.

    Raises:
        PatchgenError: it fails, or its result is not an RGB uint8 image of the same size.
    """
    _apply(_construct(config, where), np.zeros((size, size, 3), dtype=np.uint8), f"{where}: a black patch")


def resolve(config: NamedConfig, where: str) -> NamedConfig:
    """Return ``config`` with all arguments of its transform, including defaults; ``where`` names it in errors.

    Raises:
        PatchgenError: no such transform, or an unknown argument.
    """
    transform = _construct(config, where)
    arguments = {k: _plain(v) for k, v in transform.get_transform_init_args().items() if k not in ("p", "name")}
    whole = NamedConfig(name=config.name, p=config.p, **arguments)
    try:
        _construct(whole, where)
    except PatchgenError:
        return config  # a few transforms do not accept the arguments that they report
    return whole


def _apply(transform: Any, patch: Patch, which: str) -> Patch:
    """Return a transform's result.

    Raises:
        PatchgenError: the transform fails, or the result has another shape or type.
    """
    name = type(transform).__name__
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = transform(image=patch)["image"]
    except Exception as error:  # a library may raise anything over a recipe's arguments
        raise PatchgenError(f"{which}: {name} fails on it: {_line(error)}; leave it out") from error
    if result.shape != patch.shape or result.dtype != patch.dtype:
        raise PatchgenError(
            f"{which}: {name} returns {result.dtype} of shape {result.shape}, "
            f"expected uint8 of shape {patch.shape}; leave it out"
        )
    return result


def _construct(config: NamedConfig, where: str) -> Any:
    """Return the transform with p = 1: ``NamedStep`` draws which patches it is applied to."""
    names = [n for n, c in inspect.getmembers(albumentations, inspect.isclass) if _is_transform(c)]
    if config.name not in names:
        near = get_close_matches(config.name, [*names, "ColorJitter"], n=1)
        hint = f"did you mean {near[0]}?" if near else "see the list in its documentation"
        raise PatchgenError(f"{where}: Albumentations has no transform {config.name!r} of single images; {hint}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            transform = getattr(albumentations, config.name)(p=1.0, **config.arguments)
        except Exception as error:
            raise PatchgenError(f"{where}: {config.name}: {_line(error)}") from error
    unknown = [str(w.message) for w in caught if "not valid for transform" in str(w.message)]
    if unknown:
        raise PatchgenError(f"{where}: {unknown[0]}")
    return transform


def _is_transform(candidate: type) -> bool:
    kinds = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    return issubclass(candidate, kinds) and candidate not in (*kinds, albumentations.Lambda)


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
