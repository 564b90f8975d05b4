"""Read the environment variables that ``torchrun`` sets, without importing torch."""

import os

from distill.errors import DistillError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def launched() -> dict[str, int]:
    """Return the fields of ``Ranks`` that ``torchrun`` set for this process; an empty dict for a single process."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return {}
    try:
        return {name.lower(): int(os.environ[name]) for name in NAMES}
    except (KeyError, ValueError) as error:
        wanted = f"expected numbers in the environment variables {', '.join(NAMES)}"
        raise DistillError(f"{wanted}: {error}; start distill with torchrun, or unset RANK") from error
