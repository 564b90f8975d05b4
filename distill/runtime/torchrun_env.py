"""What ``torchrun`` tells a process of itself, read without torch."""

import os

from distill.errors import DistillError

_NAMES = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK", "here": "LOCAL_WORLD_SIZE"}


def launched() -> dict[str, int]:
    """This process's ``rank`` among ``world``, and ``local`` rank among those ``here``; empty where it is alone.

    Raises:
        DistillError: the environment holds no such numbers.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return {}
    found = {}
    for key, name in _NAMES.items():
        text = os.environ.get(name, "")
        if not text.isdecimal():
            raise DistillError(f"{name} is {text!r} in the environment, expected a number; start with torchrun")
        found[key] = int(text)
    if not (found["local"] < found["here"] <= found["world"] and found["rank"] < found["world"]):
        raise DistillError(f"{found} in the environment is no place among ranks; start with torchrun")
    return found
