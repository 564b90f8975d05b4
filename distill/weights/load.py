"""Load the tensors of a weight file into the network that they belong to: compare names and shapes, then read."""

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.errors import DistillError
from distill.models import build_model
from distill.models.norms import set_batch_norms
from distill.weights.files import Weights
from distill.weights.foreign_names import variants, without_counters
from distill.weights.torch_files import are_finite, require_checksums, require_file
from distill.weights.unwrap import Found, closest_state, find_networks
from manifests.support.console import note
from manifests.support.counts import counted

BESIDE_BYTES = 64 << 20  # of what a file may hold beside networks


def build_filled(weights: Weights, *, arch: str, num_classes: int) -> nn.Module:
    """Build the network ``arch`` with ``num_classes`` outputs from the parameters and the ``bn_eps`` of ``weights``.

    If the file does not name its network, its parameters may have the names of ``foreign_names``.
    """
    outline = outline_of(arch, num_classes)
    state = _match(weights, outline.state_dict(), arch, num_classes)
    require_file(weights.path, largest_file(outline))
    require_checksums(weights.path)
    if damaged := sorted(name for name, value in state.items() if not are_finite(value)):
        raise DistillError(f"{weights.path}: {damaged[0]} is no plain tensor of finite numbers; it is damaged")
    model = build_model(arch, num_classes)
    try:
        set_batch_norms(model, eps=weights.bn_eps)
    except DistillError as error:
        raise DistillError(f"{weights.path}: says bn_eps {weights.bn_eps}, but {error}") from error
    put_state(model, state)
    return model


def outline_of(arch: str, num_classes: int) -> nn.Module:
    """Return the network ``arch`` on the meta device: names and shapes, without memory for its parameters."""
    with torch.device("meta"):
        return build_model(arch, num_classes)


def put_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy tensors into a model. Some models' ``load_state_dict`` wants versions, which plain tensors do not have."""
    with torch.no_grad():
        for name, value in model.state_dict().items():  # these are the model's own tensors
            value.copy_(state[name])


def largest_file(network: nn.Module) -> int:
    """Return the bytes of a network's largest file: with an average and two moments, in twice its precision."""
    return 8 * sum(value.nbytes for value in network.state_dict().values()) + BESIDE_BYTES


def count_classes(weights: Weights, arch: str) -> int:
    """Return the number of outputs of the ``arch`` in a file: the rows of its last matrix."""
    expected = outline_of(arch, 2).state_dict()
    state = _find_state(weights, arch, expected)
    if (count := _num_outputs(state, expected)) is None:
        named = {name: expected.get(name, value) for name, value in state.items()}  # shapes depend on the classes
        _require_fit(named, expected, weights.path, arch)
        raise DistillError(f"{weights.path}: holds no linear layer, so it is no classification network")
    return count


def _match(weights: Weights, expected: dict[str, Tensor], arch: str, num_classes: int) -> dict[str, Tensor]:
    """Return the file's tensors under the names of ``expected``, whose shapes they have; reads no values."""
    state = _find_state(weights, arch, expected)
    held = weights.num_classes or _num_outputs(state, expected)
    if held is not None and held != num_classes:
        raise DistillError(
            f"{weights.path}: has {counted(held, 'class')}, but num_classes is {num_classes}; "
            "use weights trained on the same classes, or set num_classes"
        )
    _require_fit(state, expected, weights.path, arch)
    return state


def _find_state(weights: Weights, arch: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's tensors under the names of ``expected``, or the state dict that comes closest."""
    if weights.arch is None and (found := find_networks(weights.held, arch, expected)):
        return _choose(found, weights.path).state
    held = weights.arch or _held_variant(weights, arch) or arch
    if held != arch:
        raise DistillError(f"{weights.path}: holds a {held}, but the config or --arch says {arch}; say {held} there")
    return closest_state(weights.held, arch, expected) if weights.arch is None else weights.held


def _choose(found: list[Found], path: Path) -> Found:
    """Return the preferred one of several networks, and tell the user which that is."""
    first, *others = found
    if not others:
        return first
    labels = [each.label for each in found[:5]]
    what = f"{path}: holds {len(found)} such networks, under {', '.join(labels[:-1])} and {labels[-1]}"
    if not all(first.is_preferred_to(other) for other in others):
        raise DistillError(f"{what}; save the state dict of one of them alone")
    _note_once(f"{what}; that under {first.label} is read, for another save its state dict alone")
    return first


_note_once = functools.cache(note)  # a file may be read more than once


def _held_variant(weights: Weights, arch: str) -> str | None:
    """Return the variant of ``arch`` that a file holds, if any: all names and shapes fit but those of the classes."""
    for name in variants(arch):
        try:
            expected = outline_of(name, 2).state_dict()
        except DistillError:  # ResNet-56 has no variant -8x, for example
            continue
        *inner, _, _ = without_counters(expected)  # the last two are weight and bias of the classes
        for found in find_networks(weights.held, name, expected):
            if all(found.state[key].shape == expected[key].shape for key in inner):
                return name
    return None


def _num_outputs(state: dict[str, Tensor], expected: dict[str, Tensor]) -> int | None:
    """Return the number of classes of a state dict: the rows of the last matrix of ``expected``, if both have it."""
    last = [name for name, value in expected.items() if value.ndim == 2][-1:]
    if not last or last[0] not in state or state[last[0]].ndim != 2:
        return None
    return state[last[0]].shape[0]


def _require_fit(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path, arch: str) -> None:
    common = sorted(state.keys() & expected.keys())
    lacking, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    problems = {
        "lacks": lacking,
        "has the unknown": unknown,
        "has another shape of": [name for name in common if state[name].shape != expected[name].shape],
        "has numbers of another kind in": [name for name in common if _kind(state[name]) != _kind(expected[name])],
    }
    faults = [
        f"{what} {names[0][:100]}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
        for what, names in problems.items()
        if names
    ]
    if faults:
        remedy = "; give the --arch that it is, or save the network's state dict alone" if lacking or unknown else ""
        raise DistillError(f"{path}: is not a {arch}: {'; '.join(faults)}{remedy}")


def _kind(value: Tensor) -> str:
    if value.is_floating_point():
        return "float"
    return str(value.dtype) if value.is_complex() or value.dtype == torch.bool else "integer"
