"""Read the environment variables that ``torchrun`` sets, without importing torch."""

import os

from distill.errors import DistillError


def launched() -> dict[str, int]:
    """Return the fields of ``Ranks`` that ``torchrun`` set for this process; an empty dict for a single process."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return {}
    found = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        text = os.environ.get(name, "")
        if not text.isdecimal():
            raise DistillError(f"environment variable {name}: is {text!r}, expected a number; start with torchrun")
        found[name.lower()] = int(text)
    if not (found["local_rank"] < found["local_world_size"] <= found["world_size"] > found["rank"]):
        raise DistillError(
            f"environment variables of torchrun: {found}, expected ranks below their world size; start with torchrun"
        )
    return found
