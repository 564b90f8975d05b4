"""Optimizers and schedules of the user, which a config names as ``package.module:callable``."""

import contextlib
import copy
import difflib
import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.errors import DistillError
from distill.user_code import import_user, user_code
from manifests.support.user_code import UserCodeError, source_digest

Schedule = Callable[[int, int], float]
_PLAIN = (Tensor, int, float, str, type(None))


def make_own_optimizer(name: str, groups: list[dict[str, Any]], arguments: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer ``name``, called as ``callable(groups, **arguments)``. Its errors say whose code it is.

    Raises:
        DistillError: the callable cannot be imported, refuses an argument, fails, or returns no optimizer.
    """
    make, what = import_user(name, "optim.name"), f"optimizer {name}"
    _require_known(make, name, arguments)
    with user_code(what):
        optimizer = make(groups, **arguments)
    if not isinstance(optimizer, Optimizer):
        found = f"returned {type(optimizer).__name__}, expected a torch.optim.Optimizer"
        raise DistillError(f"{what}: {found}; derive your class from torch.optim.Optimizer")
    step = optimizer.step

    def guarded_step(self: Optimizer, *given: Any, **options: Any) -> Any:
        with user_code(what):
            return step(*given, **options)

    optimizer.step = types.MethodType(guarded_step, optimizer)  # type: ignore[method-assign]
    return optimizer


def _require_known(make: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # a callable in C has no signature
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for argument in arguments:
        if argument not in parameters:
            near = difflib.get_close_matches(argument, parameters, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"its parameters are {', '.join(parameters)}"
            key = argument if argument in ("lr", "weight_decay") else f"arguments.{argument}"
            raise DistillError(f"optim.{key}: {name} has no such argument; {hint}")


def require_own_optimizer(name: str, make: Callable[[list[dict[str, Any]]], Optimizer]) -> None:
    """Check the optimizer that ``make`` makes by a step on a small matrix: its learning rates and its state."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    optimizer, what = make([{"params": [parameter]}]), f"optimizer {name}"
    optimizer.step()
    if not all(isinstance(group.get("lr"), int | float) for group in optimizer.param_groups):
        found = "a group of parameters has no number lr, which the schedule changes"
        raise DistillError(f"{what}: {found}; pass defaults with lr to torch.optim.Optimizer")
    state = plain_state(name, optimizer)
    with user_code(what):
        optimizer.load_state_dict(copy.deepcopy(state))
        loaded = _dtypes(optimizer.state_dict())
    for key, dtype in _dtypes(state).items():
        if loaded.get(key) != dtype:
            found = f"its state {key!r} is {dtype}, but torch reads it from a checkpoint as {loaded.get(key)}"
            raise DistillError(f"{what}: {found}; keep it in the dtype of the parameter, or as a number")


def plain_state(name: str, optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of the user's optimizer ``name``, after a check that checkpoints can keep all of it."""
    what = f"optimizer {name}"
    with user_code(what):
        state = optimizer.state_dict()
    if (fault := _not_plain(state)) is not None:
        found = f"its state has {fault}, but checkpoints keep tensors, numbers and texts, by names"
        raise DistillError(f"{what}: {found}; keep other values outside of the state")
    return state


def _dtypes(state: dict[str, Any]) -> dict[str, torch.dtype]:
    """Return the dtypes of the tensors in the state of the first parameter by key."""
    values = state["state"].get(0, {})
    return {key: value.dtype for key, value in values.items() if isinstance(value, Tensor)}


def _not_plain(value: Any) -> str | None:
    """Describe the first value or key in nested dicts and lists that a checkpoint cannot keep; None if there is none.

    A checkpoint reads a text of digits as a number.
    """
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (int, str) or (type(key) is str and key.isdecimal()):
                return f"the key {str(key)[:40]!r}"
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return next((found for part in parts if (found := _not_plain(part)) is not None), None)
    return None if isinstance(value, _PLAIN) else f"a {type(value).__name__}"


def own_schedule(name: str, arguments: Mapping[str, Any]) -> Schedule:
    """Return the schedule ``name``: ``function(step, steps, **arguments)`` returns the factor of lr in a step.

    The first step is 0. A result that is no finite number of at least 0 is a DistillError, as is an exception.
    """
    function, what = import_user(name, "optim.schedule"), f"schedule {name}"

    def schedule(step: int, steps: int) -> float:
        if step >= steps:  # torch asks for the factor after the last step too, where a function may have none
            with contextlib.suppress(DistillError):
                return factor_of(step, steps)
            step = steps - 1
        return factor_of(step, steps)

    def factor_of(step: int, steps: int) -> float:
        with user_code(what):
            factor = function(step, steps, **arguments)
        if isinstance(factor, Tensor) and factor.ndim == 0:
            factor = factor.item()
        if not isinstance(factor, int | float) or not math.isfinite(factor) or factor < 0:
            shown = factor if isinstance(factor, int | float) else type(factor).__name__
            found = f"returned {shown} for step {step} of {steps}, expected a finite number of at least 0"
            raise DistillError(f"{what}: {found}; return the factor that multiplies optim.lr")
        return float(factor)

    return schedule


def code_digest(name: str, where: str) -> str:
    """Return the SHA-256 of the file that defines the user's callable ``name``. ``where`` is for errors."""
    import_user(name, where)
    try:
        return source_digest(name)
    except UserCodeError as error:
        raise DistillError(f"{where}: {error}") from error
