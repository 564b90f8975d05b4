"""Read the environment variables that ``torchrun`` sets, without importing torch."""

import os

from distill.errors import DistillError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def launched() -> dict[str, int]:
    """Return the fields of ``Ranks`` that ``torchrun`` set for this process; {} for a run of one process."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return {}
    found = {name: os.environ.get(name, "") for name in NAMES}
    if not all(value.isdecimal() for value in found.values()):
        raise DistillError(f"environment: expected numbers, found {found}; start with torchrun, or unset RANK")
    return {name.lower(): int(value) for name, value in found.items()}
