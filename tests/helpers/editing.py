"""Helpers that edit manifests and read folders to compare them."""

import json
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edited(path: Path, change: dict[str, Any]) -> Path:
    """Replace keys of a JSON file, and return its path. A dict in ``change`` replaces keys of an object."""
    value = json.loads(path.read_bytes())
    for key, item in change.items():
        value[key] = value[key] | item if isinstance(item, dict) else item
    path.write_text(json.dumps(value))
    return path
