"""Modules of the user as networks. Such a network is named by its class or function: ``MODULE:NAME``."""

import contextlib
import copy
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import DistillError
from distill.models.arch import is_own
from distill.models.libraries import errors
from distill.user_code import import_user, name_of, user_code
from manifests.support.counts import counted
from manifests.support.user_code import NAME_PATTERN, UserCodeError, source_digest


def own_network(name: str, arguments: dict[str, Any], num_classes: int) -> nn.Module:
    """Return the network that ``package.module:callable`` of the user returns for its arguments."""
    where = f"arch {name[:200]!r}"
    if not re.match(NAME_PATTERN, name):
        found = "is a class of the code that trained the network, which a name cannot load"
        raise DistillError(f"{where}: {found}; use it from Python, see docs/python.md")
    instead = "in Python, you can also give the module itself: arch=MODULE"
    if name.startswith("__main__:"):
        raise DistillError(f"{where}: is defined in the program or notebook that trained it; {instead}")
    try:
        create = import_user(name, where)
    except DistillError as error:
        raise DistillError(f"{error}; {instead}", error.user_traceback) from error
    _require_accepted(create, {"num_classes": num_classes, **arguments}, where, instead)
    with user_code(f"network {name}"):
        network = create(num_classes=num_classes, **arguments)
    if not isinstance(network, nn.Module):
        found = f"returned {type(network).__name__}, expected a torch.nn.Module"
        raise DistillError(f"network {name}: {found}; return the network with num_classes={num_classes} outputs")
    require_storable(network, f"network {name}")
    return network.train()


def _require_accepted(create: Callable[..., Any], arguments: dict[str, Any], where: str, instead: str) -> None:
    """Check that a callable of the user accepts ``arguments``. ``instead`` is another remedy."""
    try:
        signature = inspect.signature(create)
    except (TypeError, ValueError):  # of a callable in C
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r:.80}" for key, value in arguments.items())
        action = f"add this argument to your code, or correct arch_arguments; {instead}"
        raise DistillError(f"{where}: cannot be called with {given}: {error}; {action}") from error


def own_sources(*archs: str) -> dict[str, str]:
    """Return the SHA-256 of the file of each network of the user in ``archs`` that a name creates, by a label."""
    names = {arch.partition("(")[0] for arch in archs if is_own(arch)}
    try:
        return {f"source of {name}": source_digest(name) for name in sorted(names) if re.match(NAME_PATTERN, name)}
    except UserCodeError as error:
        raise DistillError(str(error), error.user_traceback) from error


def own_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module in float32 on the CPU, so that a run does not change the module of the user."""
    what = f"network {name_of(module)}"
    if isinstance(module, torch.jit.ScriptModule):
        raise DistillError(f"{what}: is a program of TorchScript, expected plain modules; give the original module")
    with user_code(what):
        copied = copy.deepcopy(module).cpu().float()
    require_storable(copied, what)
    return copied


def require_storable(module: nn.Module, what: str) -> None:
    """Check that a weight file can store the state of a module of the user, which ``what`` names in errors."""
    with user_code(what):
        state = module.state_dict()
    for name, value in state.items():
        kind = "not" if not isinstance(value, Tensor) else "quantized" if value.is_quantized else str(value.layout)
        if kind != "torch.strided":
            found = f"its state has the entry {name!r}, which is not a plain tensor, so no weight file can store it"
            action = "remove get_extra_state" if kind == "not" else "keep it in a buffer with persistent=False"
            raise DistillError(f"{what}: {found}; {action}")


def count_outputs(module: nn.Module, size: int, name: str, *, training: bool = False) -> int:
    """Return the number of classes of a module. Two random images of ``size`` px pass through it.

    ``module`` is left in eval mode, or in ``training`` mode. ``name`` names it in errors: if its code raises an
    exception, or if its result is not a tensor of finite logits (2, classes).
    """
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    device = next((value.device for value in module.state_dict().values()), torch.device("cpu"))
    code: contextlib.AbstractContextManager[None] = user_code(f"network {name}")
    if not is_own(name):  # a library's
        code = errors(name, f"does not accept images of {size} px", "choose another size or network")
    with code, torch.set_grad_enabled(training):
        logits = module.train(training)(example.to(device))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        mode = " in training mode" if training else ""
        found = f"returns {got} for images of shape {tuple(example.shape)}{mode}, expected logits (2, classes)"
        raise DistillError(f"network {name}: {found}; return one row of logits for each image")
    if not bool(torch.isfinite(logits).all()):
        raise DistillError(f"network {name}: its logits are not finite; correct its weights or its mean and std")
    if training and not logits.requires_grad:
        found = "its logits have no gradient, so it cannot be trained"
        raise DistillError(f"network {name}: {found}; remove detach() and torch.no_grad() from its code")
    return logits.shape[1]


def require_outputs(module: nn.Module, size: int, name: str, num_classes: int) -> None:
    """Check that a module maps images of ``size`` px to ``num_classes`` logits. It is left in eval mode."""
    if (count := count_outputs(module, size, name)) != num_classes:
        found = f"has {counted(count, 'class')}, expected {num_classes}"
        raise DistillError(f"network {name}: {found}; change its last layer, or choose another teacher or other data")


def require_trainable(module: nn.Module, size: int, name: str, num_classes: int) -> None:
    """Check a module as ``require_outputs`` does, and a copy of it in training mode, which changes batch norms."""
    require_outputs(module, size, name, num_classes)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise DistillError(f"network {name}: has no parameter that requires a gradient; call requires_grad_(True)")
    if bad := next((key for key, value in module.state_dict().items() if not torch.isfinite(value).all()), None):
        found = f"{bad} contains a number that is not finite, which no weight file may contain"
        raise DistillError(f"network {name}: {found}; correct it, or keep a constant with persistent=False")
    count_outputs(copy.deepcopy(module), size, name, training=True)
