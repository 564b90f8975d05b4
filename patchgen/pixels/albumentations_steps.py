"""Albumentations transforms: our exact ones, for any pipeline, and anybody's, as steps of a recipe.

Importing this room imports Albumentations, three seconds' work. A recipe of exact operations never does.
"""

import inspect
import json
import os
import random
import warnings
from difflib import get_close_matches
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at import, which would ask the network

import albumentations
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from patchgen.errors import PatchgenError
from patchgen.pixels.color_jitter import OPERATIONS, ColorJitterConfig, Floats, Patch, jitter, sample_jitter
from patchgen.pixels.portable_transforms import NamedConfig
from patchgen.pixels.randomness import DRAWS, generator, to_unit

_LONGEST_RECORDED = 16


class ColorJitter(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """torchvision's ColorJitter in exact arithmetic: four operations in random order, clipped after each.

    Hue is turned in the YIQ plane, which keeps luma, instead of in HSV. ``patchgen`` draws the parameters of
    a whole shard at once with ``sample``; in any other Albumentations pipeline the transform draws its own.
    """

    def __init__(self, config: ColorJitterConfig) -> None:
        super().__init__(p=config.p)
        self.config = config

    def sample(self, draws: Floats) -> dict[str, npt.NDArray[Any]]:
        """Parameters of n patches from draws in [0, 1) of shape (n, ≥ 6); see ``sample_jitter``."""
        return sample_jitter(self.config, draws)

    def apply(self, img: Patch, order: int, **params: Any) -> Patch:
        """Jitter one RGB uint8 patch of shape (H, W, 3) with one patch's parameters from ``sample``."""
        one = {"order": order, **{name: params[name] for name in OPERATIONS}}
        return jitter([img], {name: np.array([value]) for name, value in one.items()})[0]

    def get_params(self) -> dict[str, Any]:
        """One patch's parameters, inside an Albumentations pipeline, which itself decides on ``p``."""
        raw = self.random_generator.bit_generator.random_raw(DRAWS)
        columns = self.sample(to_unit(raw)[None])
        return {name: column[0] for name, column in columns.items() if name != "applied"}


class NamedStep:
    """Applies an Albumentations transform to the patches of one range of indices; a step of ``patches``.

    Each patch seeds the transform's two generators, so its outcome depends on (seed, stream, index) alone.
    """

    def __init__(self, config: NamedConfig, draws: Floats, *, seed: int, stream: int, first_index: int) -> None:
        self.name = config.name
        self._transform = _construct(config, "augment")
        self._seed, self._stream, self._first_index = seed, stream, first_index
        self._python_seeds = (draws[:, 1] * 2.0**53).astype(np.int64)
        self._applied = draws[:, 0] < config.p
        self._params = np.full(len(draws), None, dtype=object)

    def __call__(self, patches: list[Patch], start: int) -> None:
        """Transform ``patches``, of which the first has number ``start``, in their list."""
        for i in np.flatnonzero(self._applied[start : start + len(patches)]).tolist():
            number = start + i
            self._transform.set_random_state(
                generator(self._seed, self._stream, self._first_index + number),
                random.Random(int(self._python_seeds[number])),  # noqa: S311 - no secret
            )
            patches[i] = _apply(self._transform, patches[i], f"patch {self._first_index + number}")
            self._params[number] = json.dumps(_plain(self._transform.get_applied_params()))

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """``applied``, and ``params``: what Albumentations says it drew, as JSON; of large arrays the shape."""
        return {"applied": self._applied, "params": self._params}


def probe(config: NamedConfig, size: int, where: str) -> None:
    """Try a transform on a patch of ``size`` px; ``where`` names it in errors.

    Raises:
        PatchgenError: it fails, or does not keep a patch an RGB uint8 image of its size.
    """
    _apply(_construct(config, where), np.zeros((size, size, 3), dtype=np.uint8), f"{where}: a black patch")


def resolve(config: NamedConfig, where: str) -> NamedConfig:
    """``config`` with every argument of its transform, the defaults among them.

    ``where`` names it in errors.

    Raises:
        PatchgenError: no such transform, or an argument it does not take.
    """
    transform = _construct(config, where)
    arguments = {k: _plain(v) for k, v in transform.get_transform_init_args().items() if k not in ("p", "name")}
    whole = NamedConfig(name=config.name, p=config.p, **arguments)
    try:
        _construct(whole, where)
    except PatchgenError:
        return config  # a few transforms do not take back what they say of themselves
    return whole


def _apply(transform: Any, patch: Patch, which: str) -> Patch:
    """A transform's result, if it is a patch of the same size.

    Raises:
        PatchgenError: it is not, or the transform fails.
    """
    name = type(transform).__name__
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = transform(image=patch)["image"]
    except Exception as error:  # of a library, over what a recipe asked of it: there is no saying which
        raise PatchgenError(f"{which}: {name} fails on it: {_line(error)}; leave it out") from error
    if result.shape != patch.shape or result.dtype != patch.dtype:
        raise PatchgenError(
            f"{which}, uint8 of shape {patch.shape}: {name} makes {result.dtype} of shape {result.shape} of it, "
            "expected the same; leave it out"
        )
    return result


def _construct(config: NamedConfig, where: str) -> Any:
    """The transform, always applied: whether it is, is drawn outside."""
    names = [n for n, c in inspect.getmembers(albumentations, inspect.isclass) if _is_transform(c)]
    if config.name not in names:
        near = get_close_matches(config.name, [*names, ColorJitter.__name__], n=1)
        hint = f"did you mean {near[0]}?" if near else "see the list in its documentation"
        raise PatchgenError(f"{where}: Albumentations has no transform {config.name!r} of single images; {hint}")
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            transform = getattr(albumentations, config.name)(p=1.0, **config.arguments)
        except Exception as error:
            raise PatchgenError(f"{where}: {config.name}: {_line(error)}") from error
    unknown = [str(w.message) for w in complaints if "not valid for transform" in str(w.message)]
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
    """A drawn parameter as JSON would hold it; a large array becomes its shape."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k != "shape"}
    if isinstance(value, np.ndarray) and value.size > _LONGEST_RECORDED:
        return f"array of shape {value.shape}"
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
