"""Start a student from weights of another network: all weights by name, or the frozen classifier of the teacher."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from distill.errors import DistillError
from distill.weights.files import load_weights
from distill.weights.load import build_filled, count_classes

Blocks = dict[str, list[int]]  # numbers of the blocks that were taken, by the name of the stage


def load_start(path: Path, arch: str, module: nn.Module | None) -> nn.Module:
    """Return the network of a weight file, which names its network, or else has a network ``arch``.

    If the student is a ``module`` of the user, the file must have its weights.
    """
    weights = load_weights(path)
    name = module if module is not None else weights.arch or arch
    num_classes = weights.num_classes or count_classes(weights, name)
    return build_filled(weights, arch=name, num_classes=num_classes, option="--set student.arch=")


def copy_weights(student: nn.Module, source: nn.Module, what: str) -> Blocks:
    """Copy the weights of ``source`` by name. Where a stage has more or fewer blocks, take blocks evenly.

    A stage is an ``nn.Sequential`` or ``nn.ModuleList`` of blocks of one class. The first block always comes from the
    first block, which may have another stride or width, and the last from the last. Return the numbers of the blocks
    of each stage of another depth. ``what`` names the source in errors.

    Raises:
        DistillError: ``source`` has no weight for a weight of the student, or one of another shape.
    """
    blocks: Blocks = {}
    paths = dict(_pairs(student, source, ("", ""), blocks))
    own, others = student.state_dict(), source.state_dict()
    named = {name: _other_name(name, paths) for name in own}
    if missing := next((name for name, other in named.items() if other not in others), None):
        action = "choose a network of the same kind, with another depth at most"
        raise DistillError(f"student.init: {what} has no weight for {missing} of the student; {action}")
    for name, value in own.items():
        other = named[name]
        if others[other].shape != value.shape:
            found = f"{other} of {what} has the shape {tuple(others[other].shape)}, expected {tuple(value.shape)}"
            action = "choose a network with the same widths and classes"
            raise DistillError(f"student.init: {found} as {name} of the student; {action}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(others[named[name]])
    return blocks


def _other_name(name: str, paths: dict[str, str]) -> str:
    """Return the name in the source of a weight of the student, or an empty text."""
    path, _, leaf = name.rpartition(".")
    return f"{paths[path]}.{leaf}".lstrip(".") if path in paths else ""


def describe_blocks(blocks: Blocks) -> str:
    """Return a part of a sentence, such as ``blocks 0, 4, 8 of layer1``, or that all weights were taken."""
    stages = [
        f"block{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {name}"
        for name, numbers in blocks.items()
    ]
    return "; ".join(stages) or "all weights"


def _pairs(own: nn.Module, other: nn.Module, paths: tuple[str, str], blocks: Blocks) -> Iterator[tuple[str, str]]:
    """Yield the names of modules of the student, each with the name of its module in the source."""
    yield paths
    mine, theirs = list(own._modules), list(other._modules)
    partners = {name: name for name in mine if name in theirs}
    if len(mine) != len(theirs) and _are_blocks(own, other):
        numbers = [_even(number, len(mine), len(theirs)) for number in range(len(mine))]
        blocks[paths[0]] = numbers
        partners = {name: theirs[number] for name, number in zip(mine, numbers, strict=True)}
    for name, partner in partners.items():
        inner, outer = own._modules[name], other._modules[partner]
        if inner is not None and outer is not None:
            names = f"{paths[0]}.{name}".lstrip("."), f"{paths[1]}.{partner}".lstrip(".")
            yield from _pairs(inner, outer, names, blocks)


def _are_blocks(own: nn.Module, other: nn.Module) -> bool:
    """Return whether both modules are sequences of blocks of one class, which have modules themselves."""
    if not all(isinstance(each, nn.Sequential | nn.ModuleList) and len(each) for each in (own, other)):
        return False
    children = [*own.children(), *other.children()]
    return len({type(child) for child in children}) == 1 and any(True for _ in children[0].children())


def _even(number: int, count: int, source_count: int) -> int:
    """Return the block of ``source_count`` blocks for block ``number`` of ``count`` blocks."""
    if number == 0 or source_count == 1:
        return 0
    return max(1, (2 * number * (source_count - 1) + count - 1) // (2 * (count - 1)))


def copy_classifier(student: nn.Module, teacher: nn.Module, num_classes: int) -> None:
    """Copy the last linear layer of the teacher into the student, and freeze it there.

    Raises:
        DistillError: a network has no such layer, or the layers have different shapes.
    """
    own, other = (_classifier(each, num_classes, what) for each, what in ((student, "student"), (teacher, "teacher")))
    if own.weight.shape != other.weight.shape or (own.bias is None) != (other.bias is None):
        shapes = [
            f"{tuple(each.weight.shape)} {'without' if each.bias is None else 'with'} a bias" for each in (own, other)
        ]
        found = f"the classifier of the student has the shape {shapes[0]}, that of the teacher {shapes[1]}"
        raise DistillError(f"student.head: {found}; choose a student with the teacher's width before the classifier")
    own.load_state_dict(other.state_dict())
    own.requires_grad_(False)


def _classifier(network: nn.Module, num_classes: int, what: str) -> nn.Linear:
    found = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not found or found[-1].out_features != num_classes:
        problem = f"the {what} does not end with a linear layer of {num_classes} outputs"
        raise DistillError(f"student.head: {problem}; choose another network, or omit student.head")
    return found[-1]
