"""Seeds by purpose and position, so that a resumed run draws what an uninterrupted one would have drawn."""

import hashlib

import torch


def generator(seed: int, purpose: str, position: int) -> torch.Generator:
    """A CPU generator for one purpose at one position (a step, an epoch) of a run with ``seed``."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
