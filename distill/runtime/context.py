"""The device and the ranks of a run."""

import dataclasses

import torch

from distill.runtime.distributed import SINGLE_PROCESS, Ranks


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
    """The device of this process, and the ranks that share each batch."""

    device: torch.device
    ranks: Ranks = SINGLE_PROCESS
