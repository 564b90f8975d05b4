"""Limits of networks of libraries, whose names and arguments may come from the files of other people."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from distill.errors import DistillError

MAX_MODULES = 20_000  # four times those of the largest network of timm
MAX_FILE_BYTES = 16 << 30  # the largest networks have 2 GB, and an optimizer keeps two more values of each weight
MAX_ARGUMENT = 100_000  # libraries create lists as long as some arguments
MAX_NUMBER = 2_000_000  # in the config of a model; the largest vocabulary that is known has 0.9 million words


def build_limited(
    name: str, create: Callable[[], nn.Module], outline: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Return the network that ``create`` builds, if it has few modules and little memory.

    ``outline`` builds the same network without weights, by default ``create``. It is called on the meta device first.
    """
    with few_modules(name):
        if torch.get_default_device().type != "meta":
            with torch.device("meta"):
                require_memory(name, (outline or create)())
        return create()


@contextlib.contextmanager
def few_modules(name: str) -> Iterator[None]:
    """Raise DistillError as soon as more than ``MAX_MODULES`` modules are built in the block."""
    count = 0

    def observe(parent: nn.Module, key: str, child: nn.Module | None) -> None:
        nonlocal count
        count += 1
        if count > MAX_MODULES:
            found = f"has more than {MAX_MODULES} modules, the most that is supported"
            raise DistillError(f"arch {name[:200]!r}: the network {found}; choose a smaller network")

    hook = register_module_module_registration_hook(observe)
    try:
        yield
    finally:
        hook.remove()


def require_memory(name: str, network: nn.Module) -> None:
    """Check that the parameters and buffers of a network on the meta device are not larger than a weight file."""
    if (needed := sum(value.nbytes for value in [*network.parameters(), *network.buffers()])) > MAX_FILE_BYTES:
        found = f"its weights need {needed / 1e9:.1f} GB, expected at most {MAX_FILE_BYTES / 1e9:.1f} GB"
        raise DistillError(f"arch {name[:200]!r}: {found}; choose a smaller network")


def require_small_numbers(name: str, values: Any, most: int) -> None:
    """Check that no number in nested dicts and lists is larger than ``most``."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for each in values:
            require_small_numbers(name, each, most)
    elif isinstance(values, int | float) and values > most:
        found = f"the number {str(values)[:20]} is too large, expected at most {most}"
        raise DistillError(f"arch {name[:200]!r}: {found}; correct the arguments or the config of the model")
