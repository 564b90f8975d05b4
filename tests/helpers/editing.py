"""Manifests changed by a stranger's hand, and folders compared."""

import json
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edited(path: Path, change: dict[str, Any]) -> Path:
    value = json.loads(path.read_bytes())
    for key, item in change.items():
        value[key] = value[key] | item if isinstance(item, dict) else item
    path.write_text(json.dumps(value))
    return path


def sign(path: Path) -> Path:
    """Give an edited manifest the set_id of its content, as a forger would."""
    from manifests.format.digest import set_id

    value = json.loads(path.read_bytes())
    return edited(path, {"set_id": set_id(value)})
