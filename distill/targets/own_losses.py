"""Losses of the user: functions of the logits of student and teacher, as objects or by their names in a config."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from distill.errors import DistillError
from distill.targets.losses import AnyLossConfig, FunctionLossConfig, Functions, Loss, checked, terms_of
from distill.user_code import import_user, name_of, source_digest, user_code
from manifests.support import user_code as named_code

LossesConfig = AnyLossConfig | Sequence[AnyLossConfig]


def load_functions(
    losses: LossesConfig, num_classes: int, objects: Functions | None = None
) -> tuple[LossesConfig, Functions]:
    """Import the functions of the user that ``losses`` name, and call each function once, to check it.

    Return ``losses`` with the digest ``sha256`` of the source of each function, and the functions. ``objects`` are
    functions of a Python program, which are not imported.

    Raises:
        DistillError: a function cannot be imported, has other arguments, or returns no scalar with a gradient.
    """
    functions = dict(objects or {})
    terms: list[AnyLossConfig] = []
    for term in terms_of(losses):
        if isinstance(term, FunctionLossConfig) and term.key not in functions:
            function = import_user(term.function, "loss.function")
            sha256 = _digest(term.function)
            if term.sha256 not in (None, sha256):
                found = (
                    f"has a source with the SHA-256 {sha256[:16]}…, but the config states {str(term.sha256)[:16]}…"
                )
                raise DistillError(f"loss {term.function}: {found}; restore its source, or omit sha256")
            check_function(function, term.arguments, term.function, num_classes)
            functions[term.function, sha256] = function
            terms.append(term.model_copy(update={"sha256": sha256}))
        else:
            terms.append(term)
    return (terms if isinstance(losses, Sequence) else terms[0]), functions


def _digest(name: str) -> str:
    """Return the digest of the source file of a function. Its arguments are part of the config, not of the digest."""
    try:
        return named_code.source_digest(name)
    except named_code.UserCodeError as error:
        raise DistillError(f"loss.function: {error}", error.user_traceback) from error


def describe_function(function: Loss, num_classes: int, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the keys of a ``FunctionLossConfig`` for a function. Call it once, to check its arguments and result."""
    name = name_of(function)
    check_function(function, arguments, name, num_classes)
    return {"name": "function", "function": name, "sha256": source_digest(function)}


def check_function(
    function: Callable[..., Tensor], arguments: Mapping[str, Any] | None, name: str, num_classes: int
) -> None:
    """Check the signature of a loss, and call it once."""
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        found = f"arguments are {str(arguments)[:80]}, expected a dict of values by their names"
        raise DistillError(f"loss {name}: {found}; correct the arguments of the loss")
    with contextlib.suppress(ValueError):  # some functions written in C have no signature
        signature = inspect.signature(function)
        try:
            signature.bind(None, None, **arguments)
        except TypeError as error:
            known = [each for each in list(signature.parameters)[2:] if each not in arguments]
            unknown = next((each for each in arguments if each not in signature.parameters), "")
            near = get_close_matches(unknown, known, n=1)
            action = f"did you mean {near[0]}?" if near else "correct the function or the arguments of the loss"
            called = ", ".join(["student_logits", "teacher_logits", *(f"{key}=…" for key in arguments)])
            raise DistillError(f"loss {name}: cannot be called with ({called}): {error}; {action}") from error
    _call_once(functools.partial(function, **arguments), name, num_classes)


def _call_once(function: Loss, name: str, num_classes: int) -> None:
    """Check that a loss returns a finite scalar with a finite gradient for random logits of eight samples."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, num_classes, generator=generator)
    value = checked(function, name, 1.0)(student.requires_grad_(), teacher)
    with user_code(f"the backward pass of loss {name}"):
        (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
    fault = None
    if not bool(torch.isfinite(value)):
        fault = f"returned {float(value.detach())} for random logits, expected a finite number"
    elif gradient is None or not bool(torch.isfinite(gradient).all()):
        fault = "has no finite gradient with respect to the student's logits"
    if fault:
        raise DistillError(f"loss {name}: {fault}; correct the function")
