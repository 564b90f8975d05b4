"""Apply functions that users wrote as steps of a recipe."""

import functools
import inspect
import json
from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from manifests.support.user_code import (
    NAME_PATTERN,
    UserCodeError,
    failure,
    import_function,
    package_version,
    require_allowed,
    source_digest,
)
from patchgen.errors import PatchgenError
from patchgen.pixels.exact_math import Floats, Pixels
from patchgen.pixels.randomness import generator

_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


class OwnConfig(BaseModel):
    """A user's function in a recipe: ``name`` is ``package.module:function``. Other keys are arguments of it.

    ``sha256`` is the digest of the file that defines the function. It is recorded when the recipe is loaded. If it is
    given, the file must have this digest.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=200)]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches that the function changes")] = 0.5
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the function after ``patch`` and ``rng``."""
        return dict(self.model_extra or {})

    def environment(self) -> dict[str, str]:
        """Return the version of the package that contains the function, by the name of the package."""
        return dict([package_version(self.name)])


class OwnStep:
    """Applies a user's function to the patches of one range of indices.

    The function is called as ``function(patch, rng, **arguments)``. The generator ``rng`` is seeded for each patch
    from (seed, stream, index). In ``columns``, ``applied`` is true for the patches that the function changed.
    """

    def __init__(self, config: OwnConfig, draws: Floats, *, seed: int, stream: int, first_index: int) -> None:
        self.name = config.name.partition(":")[2]
        self._config, self._function = config, _load(config, "augment")
        self._generator = functools.partial(generator, seed, stream)
        self._first_index = first_index
        self.columns: dict[str, Any] = {"applied": draws[:, 0] < config.p}

    def __call__(self, patches: list[Pixels], start: int) -> None:
        """Change the chosen ones of ``patches`` in place. ``patches[0]`` is patch ``start`` of the range."""
        for i in np.flatnonzero(self.columns["applied"][start : start + len(patches)]).tolist():
            index = self._first_index + start + i
            patches[i] = _call(self._function, self._config, patches[i], self._generator(index), f"patch {index}")


def resolve_own(config: OwnConfig, where: str) -> OwnConfig:
    """Return ``config`` with the default arguments of its function and the digest of its source file.

    ``where`` is the place of the step in error messages.

    Raises:
        PatchgenError: the import is not allowed or fails, or the arguments do not fit the function.
    """
    try:
        require_allowed(config.name)
        json.dumps(config.arguments, allow_nan=False)
    except UserCodeError as error:
        raise PatchgenError(f"{where}: {error}") from error
    except ValueError as error:
        what = f"{config.name} has an argument that is not a finite number, which a manifest cannot record"
        raise PatchgenError(f"{where}: {what}; use finite numbers") from error
    function = _load(config, where)
    arguments = _bind(function, config, where)
    return OwnConfig(name=config.name, p=config.p, sha256=source_digest(config.name), **arguments)


def probe_own(config: OwnConfig, size: int, where: str) -> None:
    """Check that a function returns RGB uint8 patches of ``size`` px, and the same pixels for the same draws."""
    function = _load(config, where)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    which = f"{where}: a patch of noise"
    first, second = (_call(function, config, noise.copy(), generator(0, 0, 0), which) for _ in range(2))
    if not np.array_equal(first, second):
        what = f"{config.name} returned two different results for the same patch and the same rng"
        raise PatchgenError(f"{which}: {what}; draw random numbers only from its second argument, rng")


def _load(config: OwnConfig, where: str) -> Callable[..., Any]:
    """Import the function of a step. ``resolve_own`` has checked that this is allowed."""
    try:
        function, digest = import_function(config.name), source_digest(config.name)
    except UserCodeError as error:
        raise PatchgenError(f"{where}: {error}", error.user_traceback) from error
    if config.sha256 not in (None, digest):
        what = f"the file of {config.name} has the sha256 {digest}, but the recipe declares {config.sha256}"
        advice = (
            "install the version that the manifest names under 'environment', or start Python again after an edit"
        )
        raise PatchgenError(f"{where}: {what}; {advice}")
    return function


def _bind(function: Callable[..., Any], config: OwnConfig, where: str) -> dict[str, Any]:
    """Return the arguments of a step with the function's defaults. Raise an error if they do not fit the function."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C have no signature
        return config.arguments
    name, parameters = config.name, list(signature.parameters.values())
    named = [each for each in parameters[2:] if each.kind not in _UNNAMED]
    known = [each.name for each in named]
    if reserved := sorted({*OwnConfig.model_fields} & set(known)):
        what = f"{name} has an argument {reserved[0]!r}, which is a key of every step"
        raise PatchgenError(f"{where}: {what}; rename the argument")
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    for key in config.arguments if not takes_any else ():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its arguments are {', '.join(known) or 'patch and rng'}"
            raise PatchgenError(f"{where}: {name} has no argument {key!r}; {hint}")
    try:
        signature.bind(None, None, **config.arguments)
    except TypeError as error:
        call = f"it is called as {name.partition(':')[2]}(patch, rng, **arguments)"
        raise PatchgenError(f"{where}: {name}{signature}: {error}, and {call}; correct the function") from error
    plain = (str, int, float, bool, type(None))
    defaults = {each.name: each.default for each in named if isinstance(each.default, plain)}
    return defaults | config.arguments


def _call(function: Callable[..., Any], config: OwnConfig, patch: Pixels, rng: Any, which: str) -> Pixels:
    """Return a copy of a function's result. Raise an error if the function fails or returns something else."""
    try:
        result = function(patch, rng, **config.arguments)
    except (Exception, SystemExit) as error:
        raised = failure(f"{which}: {config.name}", error)
        raise PatchgenError(str(raised), raised.user_traceback) from error
    shape = (patch.shape[0], patch.shape[0], 3)
    if not isinstance(result, np.ndarray) or result.dtype != np.uint8 or result.shape != shape:
        is_array = isinstance(result, np.ndarray)
        found = f"{result.dtype} of shape {result.shape}" if is_array else f"a {type(result).__name__}"
        expected = f"an array of uint8 of shape {shape}"
        raise PatchgenError(f"{which}: {config.name} returned {found}, expected {expected}; correct this function")
    return np.array(result, order="C")
