"""The environment variables that ``torchrun`` sets, read without importing torch."""

import os

from distill.errors import DistillError

_NAMES = {
    "rank": "RANK",
    "world_size": "WORLD_SIZE",
    "local_rank": "LOCAL_RANK",
    "local_world_size": "LOCAL_WORLD_SIZE",
}


def launched() -> dict[str, int]:
    """Return the fields of ``Ranks`` that ``torchrun`` set for this process; empty for a single process."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return {}
    found = {}
    for key, name in _NAMES.items():
        text = os.environ.get(name, "")
        if not text.isdecimal():
            raise DistillError(f"{name} is {text!r} in the environment, expected a number; start with torchrun")
        found[key] = int(text)
    if not (found["local_rank"] < found["local_world_size"] <= found["world_size"] > found["rank"]):
        raise DistillError(f"{found} in the environment: a rank is not below its world size; start with torchrun")
    return found
