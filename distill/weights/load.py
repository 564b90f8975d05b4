"""Load a weight file into a network: find the state dict, compare names and shapes, then copy the tensors."""

import contextlib
import copy
import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.errors import DistillError
from distill.models import build_model, set_batch_norms
from distill.models.arch import is_own
from distill.user_code import name_of
from distill.weights.files import Weights
from distill.weights.foreign_names import Found, State, closest_state, find_networks, variants, without_counters
from distill.weights.torch_files import CORRUPT, are_finite, require_checksums, require_file
from manifests.support.console import note
from manifests.support.counts import counted

OTHER_BYTES = 64 << 20  # largest size of the other content of a weight file


def build_filled(weights: Weights, *, arch: str | nn.Module, num_classes: int, option: str = "--arch ") -> nn.Module:
    """Build the network ``arch`` with ``num_classes`` outputs, and copy the parameters and ``bn_eps`` of ``weights``.

    If the weight file declares no architecture, the parameters may have the names of other repositories. ``option``
    is the command-line option that sets ``arch``, for messages: "--arch " or "--set teacher.arch=". If ``arch`` is a
    module of the user, a copy of it is filled.
    """
    if isinstance(arch, nn.Module):
        outline, name = arch, name_of(arch)
        state = own_state(weights, arch)
        _require_fit(state, arch.state_dict(), weights.path, name, "arch=")
    else:
        outline, name = outline_of(arch, num_classes), arch
        state = _match(weights, outline.state_dict(), arch, num_classes, option)
    require_file(weights.path, largest_file(outline))
    require_checksums(weights.path)
    if damaged := sorted(name for name, value in state.items() if not are_finite(value)):
        raise DistillError(f"{weights.path}: parameter {damaged[0]} contains a number that is not finite; {CORRUPT}")
    model = copy.deepcopy(arch) if isinstance(arch, nn.Module) else build_model(arch, num_classes)
    try:
        set_batch_norms(model, eps=weights.bn_eps)
    except DistillError as error:
        found = f"declares bn_eps {weights.bn_eps}, but the network {name} has no batch norm"
        raise DistillError(f"{weights.path}: the file {found}; {CORRUPT}") from error
    put_state(model, state)
    return model


def own_state(weights: Weights, module: nn.Module) -> State:
    """Return the state dict in ``weights`` that has the most names in common with a module of the user."""
    if weights.arch is not None:
        return weights.content
    return closest_state(weights.content, name_of(module), module.state_dict())


def outline_of(arch: str, num_classes: int) -> nn.Module:
    """Return the network ``arch`` on the meta device: parameters have names and shapes, but no memory.

    Code of the user may need values, so such a network is on the CPU.
    """
    with contextlib.nullcontext() if is_own(arch) else torch.device("meta"):
        return build_model(arch, num_classes)


def put_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy tensors into a model. ``state`` needs no versions of modules, which ``load_state_dict`` reads."""
    with torch.no_grad():
        for name, value in model.state_dict().items():  # these are the model's own tensors
            value.copy_(state[name])


def largest_file(network: nn.Module) -> int:
    """Return the largest accepted size of a weight file in bytes: four copies of the weights in double precision."""
    return 8 * sum(value.nbytes for value in network.state_dict().values()) + OTHER_BYTES


def count_classes(weights: Weights, arch: str | nn.Module) -> int:
    """Return the number of classes in ``weights``: the number of rows in the last matrix of the network."""
    if isinstance(arch, nn.Module):
        count = _num_outputs(own_state(weights, arch), arch.state_dict())
        if count is None:
            found = f"does not declare its classes, and {name_of(arch)} has no linear layer"
            raise DistillError(f"{weights.path}: {found}; choose a file that distill wrote")
        return count
    expected = outline_of(arch, 2).state_dict()
    state = _find_state(weights, arch, expected, "--arch ")
    if (count := _num_outputs(state, expected)) is None:
        named = {name: expected.get(name, value) for name, value in state.items()}  # shapes depend on the classes
        _require_fit(named, expected, weights.path, arch, "--arch ")
        found = "contains no linear layer, so the network does not classify"
        raise DistillError(f"{weights.path}: {found}; choose a weight file of a classification network")
    return count


def _match(weights: Weights, expected: dict[str, Tensor], arch: str, num_classes: int, option: str) -> State:
    """Return the state dict in ``weights``, and check that names, shapes and types are as in ``expected``."""
    state = _find_state(weights, arch, expected, option)
    own = weights.num_classes or _num_outputs(state, expected)
    if own is not None and own != num_classes:
        found = f"has {counted(own, 'class')}, but num_classes is {num_classes}"
        raise DistillError(f"{weights.path}: the network {found}; set num_classes to {own}, or choose another file")
    _require_fit(state, expected, weights.path, arch, option)
    return state


def _find_state(weights: Weights, arch: str, expected: dict[str, Tensor], option: str) -> State:
    """Return the state dict in ``weights`` that has the names in ``expected``, or else the closest state dict."""
    if weights.arch is None and (found := find_networks(weights.content, arch, expected)):
        return _choose(found, weights.path, arch).state
    own = weights.arch or _own_variant(weights, arch) or arch
    if own != arch:
        raise DistillError(f"{weights.path}: contains a {own}, but arch is {arch}; use {option}{own}")
    return closest_state(weights.content, arch, expected) if weights.arch is None else weights.content


def _choose(found: list[Found], path: Path, arch: str) -> Found:
    """Return the preferred network. Print a note if there are several. Raises DistillError if none is preferred."""
    first, *others = found
    labels = ", ".join(each.label for each in found[:5])
    what = f"{path}: contains {len(found)} networks of the architecture {arch}, with the keys {labels}"
    if not all(first.is_preferred_to(other) for other in others):
        action = "save the state dict of one network in a separate file"
        raise DistillError(f"{what}, and it is not clear which network to use; {action}")
    if others:
        _note_once(f"{what}; {first.label} is used; to use another network, save its state dict in a separate file")
    return first


_note_once = functools.cache(note)  # a file may be read more than once


def _own_variant(weights: Weights, arch: str) -> str | None:
    """Return the variant of ``arch`` that a weight file contains, or None. The number of classes does not matter."""
    for name in variants(arch):
        try:
            expected = outline_of(name, 2).state_dict()
        except DistillError:  # ResNet-56 has no variant -8x, for example
            continue
        *inner, _, _ = without_counters(expected)  # the last two are weight and bias of the linear layer
        for found in find_networks(weights.content, name, expected):
            if all(found.state[key].shape == expected[key].shape for key in inner):
                return name
    return None


def _num_outputs(state: dict[str, Tensor], expected: dict[str, Tensor]) -> int | None:
    """Return the number of classes: the rows of the last linear layer; None if ``state`` lacks this layer."""
    last = [state.get(name) for name, value in expected.items() if value.ndim == 2][-1:]
    return last[0].shape[0] if last and last[0] is not None and last[0].ndim == 2 else None


def _require_fit(state: State, expected: State, path: Path, arch: str, option: str) -> None:
    common = sorted(state.keys() & expected.keys())
    problems = {
        "is missing": sorted(expected.keys() - state.keys()),
        "is unknown": sorted(state.keys() - expected.keys()),
        f"has another shape than in {arch}": [n for n in common if state[n].shape != expected[n].shape],
        f"has another type of number than in {arch}": [n for n in common if _kind(state[n]) != _kind(expected[n])],
    }
    faults = [
        f"the parameter {names[0][:100]}" + (f" (and {len(names) - 1} more) " if len(names) > 1 else " ") + problem
        for problem, names in problems.items()
        if names
    ]
    if faults:
        action = f"name the network in the file with {option}NAME, or save only the state dict of the network"
        raise DistillError(f"{path}: is not a {arch}: {', '.join(faults)}; {action}")


def _kind(value: Tensor) -> str:
    if value.is_floating_point():
        return "float"
    return str(value.dtype) if value.is_complex() or value.dtype == torch.bool else "integer"
