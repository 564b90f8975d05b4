"""A weight file's tensors put into the network they are of: names, shapes and kinds first, memory only then."""

import functools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.errors import DistillError
from distill.models import build_model
from distill.models.norms import set_batch_norms
from distill.weights.archive import require_sums
from distill.weights.files import Weights
from distill.weights.foreign_names import variants, without_counters
from distill.weights.torch_files import are_finite, owned, require_file
from distill.weights.unwrap import Found, closest, find_networks
from manifests.support.console import note
from manifests.support.counts import counted

BESIDE_BYTES = 64 << 20
"""What a file may hold beside networks."""


def build_filled(weights: Weights, *, arch: str, num_classes: int) -> nn.Module:
    """The network ``arch`` with ``num_classes`` outputs, the parameters of ``weights`` and the ``bn_eps`` they say.

    Where the file does not say what network it holds, its parameters may have the names of ``foreign_names``.

    Raises:
        DistillError: the file is damaged, of another network, or of another number of classes.
    """
    outline = outline_of(arch, num_classes)
    state = _fitting(weights, outline.state_dict(), arch, num_classes)
    require_file(weights.path, largest_file(outline))
    require_sums(weights.path)
    if unusable := sorted(name for name, value in state.items() if not are_finite(owned(value))):
        raise DistillError(f"{weights.path}: {unusable[0]} is no plain tensor of finite numbers; it is damaged")
    model = build_model(arch, num_classes)
    try:
        set_batch_norms(model, eps=weights.bn_eps)
    except DistillError as error:
        raise DistillError(f"{weights.path}: says bn_eps {weights.bn_eps}, but {error}") from error
    put_state(model, state)
    return model


def require_network(weights: Weights, *, arch: str, num_classes: int) -> None:
    """Make sure, from names and shapes alone, that a file holds ``arch`` with ``num_classes`` outputs.

    Raises:
        DistillError: it is of another network, or of another number of classes.
    """
    _fitting(weights, outline_of(arch, num_classes).state_dict(), arch, num_classes)


def outline_of(arch: str, num_classes: int) -> nn.Module:
    """A network of names and shapes alone, which takes no memory.

    Raises:
        DistillError: no network has this name.
    """
    with torch.device("meta"):
        return build_model(arch, num_classes)


def put_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy tensors of a model's names and shapes into it.

    ``load_state_dict`` asks some models for versions, which state dicts of plain tensors do not have.
    """
    with torch.no_grad():
        for name, value in model.state_dict().items():  # these are the model's own tensors
            value.copy_(owned(state[name]))


def largest_file(network: nn.Module) -> int:
    """Bytes of the largest file in which a network, on any device, may come: with an average and two moments of an
    optimiser, in twice the precision."""
    return 8 * sum(value.nbytes for value in network.state_dict().values()) + BESIDE_BYTES


def count_classes(weights: Weights, arch: str) -> int:
    """Number of outputs of the ``arch`` in a file: the rows of its last matrix, the linear layer that ends a network.

    Raises:
        DistillError: the file holds another network, or this one ends with no matrix.
    """
    expected = outline_of(arch, 2).state_dict()
    state = _state_of(weights, arch, expected)
    if (count := _outputs(state, expected)) is None:
        named = {name: expected.get(name, value) for name, value in state.items()}  # shapes depend on the classes
        _require_fit(named, expected, weights.path, arch)
        raise DistillError(f"{weights.path}: holds no linear layer, so it is no classification network")
    return count


def _state_of(weights: Weights, arch: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by the names of ``expected``, or what comes closest; which needs no memory.

    Raises:
        DistillError: the file says or shows that it holds another network, or holds several.
    """
    held_arch = weights.arch
    if held_arch is None:
        if found := find_networks(weights.held, arch, expected):
            return _meant(found, weights.path).state
        held_arch = _variant(weights, arch)
    if held_arch is not None and held_arch != arch:
        raise DistillError(
            f"{weights.path}: holds a {held_arch}, but the config or --arch says {arch}; say {held_arch} there"
        )
    return closest(weights.held, arch, expected) if weights.arch is None else weights.held


def _meant(found: list[Found], path: Path) -> Found:
    """The one of several networks that is meant, as ``wrapped.PREFERRED`` says; the user is told.

    Raises:
        DistillError: nothing says which.
    """
    first, *others = found
    if not others:
        return first
    places = [each.where for each in found[:5]]
    what = f"{path}: holds {len(found)} such networks, under {', '.join(places[:-1])} and {places[-1]}"
    if not all(first.is_before(other) for other in others):
        raise DistillError(f"{what}; save the state dict of one of them alone")
    _tell(f"{what}; that under {first.where} is read, for another save its state dict alone")
    return first


_tell = functools.cache(note)
"""Once, though a file is read more than once."""


def _variant(weights: Weights, arch: str) -> str | None:
    """The variant of ``arch`` that a file holds, if any. Names and shapes of all but the classes decide."""
    for name in variants(arch):
        try:
            expected = outline_of(name, 2).state_dict()
        except DistillError:  # ResNet-56 has no variant -8x, for one
            continue
        *inner, _, _ = without_counters(expected)  # weight and bias of the classes
        for found in find_networks(weights.held, name, expected):
            if all(found.state[key].shape == expected[key].shape for key in inner):
                return name
    return None


def _fitting(weights: Weights, expected: dict[str, Tensor], arch: str, num_classes: int) -> dict[str, Tensor]:
    """The file's tensors by the names of ``expected``, which needs no memory."""
    state = _state_of(weights, arch, expected)
    held = weights.num_classes or _outputs(state, expected)
    if held is not None and held != num_classes:
        raise DistillError(
            f"{weights.path}: has {counted(held, 'class')}, but num_classes is {num_classes}; "
            "use weights trained on the same classes, or set num_classes"
        )
    _require_fit(state, expected, weights.path, arch)
    return state


def _require_fit(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path, arch: str) -> None:
    problems = [
        _problem("lacks", sorted(expected.keys() - state.keys())),
        _problem("has the unknown", sorted(state.keys() - expected.keys())),
        _problem("has another shape of", _reshaped(state, expected)),
        _problem("has numbers of another kind in", _other_kinds(state, expected)),
    ]
    if any(problems):
        faults = "; ".join(problem for problem in problems if problem)
        remedy = "; give the --arch that it is, or save the network's state dict alone" if any(problems[:2]) else ""
        raise DistillError(f"{path}: is not a {arch}: {faults}{remedy}")


def _other_kinds(state: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Names of whole numbers where others belong, and the other way round."""
    common = sorted(state.keys() & expected.keys())
    return [name for name in common if _kind(state[name]) != _kind(expected[name])]


def _kind(value: Tensor) -> str:
    if value.is_floating_point():
        return "float"
    return str(value.dtype) if value.is_complex() or value.dtype == torch.bool else "integer"


def _outputs(state: dict[str, Tensor], expected: dict[str, Tensor]) -> int | None:
    """Number of classes a state dict was made for, when it fits but for its last layer."""
    last = [name for name, value in expected.items() if value.ndim == 2][-1:]
    if not last or last[0] not in state or state[last[0]].ndim != 2:
        return None
    return state[last[0]].shape[0]


def _reshaped(state: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    common = sorted(state.keys() & expected.keys())
    return [name for name in common if state[name].shape != expected[name].shape]


def _problem(what: str, names: Iterable[str]) -> str:
    listed = list(names)
    more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
    return f"{what} {listed[0][:100]}{more}" if listed else ""
