"""What a run was made from. Runs have a mean only where all of it is the same but the seed."""

import json
from collections.abc import Mapping
from typing import Any

from manifests.diff import differences

DIGESTS = {
    "set_id": "patch set",
    "data_sha256": "training images",
    "teacher_sha256": "teacher's file",
    "eval_sha256": "evaluation images and labels",
    "config_sha256_without_seed": "config, with the order it gives, without seeds",
}
"""Keys of a summary that runs with a mean share, and their names on a page."""

_STILL = {
    "data": ("workers", "cache", "cache_dir", "window"),
    "train": ("checkpoint_seconds", "log_steps", "tensorboard"),
    "teacher": ("weights", "logits", "labels"),
}
_MOST_LETTERS = 16
_NEWER_KEYS = {"milestones": [], "gamma": None, "warmup": 0.0, "betas": [0.9, 0.999], "eps": 1e-8} | {
    "bn_momentum": None,
    "bn_eps": None,
    "weight": 1.0,
}
"""Keys that came after the first checkpoints, with their defaults: at these, no identity has them."""


def moving(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as plain values, without what moves no weight: places of files, caches, logs and evaluation."""
    return {
        group: {key: item for key, item in value.items() if not _is_still(group, key, item)}
        if isinstance(value, dict)
        else value
        for group, value in config.items()
        if group not in ("eval", "paper")
    }


def _is_still(group: str, key: str, item: Any) -> bool:
    newer = group in ("loss", "optim", "student", "network") and key in _NEWER_KEYS
    return key in _STILL.get(group, ()) or (newer and item == _NEWER_KEYS[key])


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config, or a view as it describes itself, without the seed that differs from run to run."""
    plain = {key: value for key, value in config.items() if key != "seed"}
    nested = {key: plain[key] for key in ("train", "order") if isinstance(plain.get(key), dict)}
    return plain | {
        key: {name: item for name, item in value.items() if name != "seed"} for key, value in nested.items()
    }


def origin(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the runs of a mean share: of a ``config`` all but the seed, and the digests of a ``summary``, or None."""
    plain = json.loads(json.dumps(config, default=str, skipkeys=True))
    return {"config": without_seed(moving(plain))} | {key: summary.get(key) for key in DIGESTS}


def no_mean(origins: Mapping[str, Mapping[str, Any]], *, supervised: bool) -> str | None:
    """Why evaluated runs of these origins, by name, have no mean: what differs or is not known.

    None where they have one, or are a single run. ``supervised`` runs learnt from labels.
    """
    if len(origins) < 2:
        return None
    (first, held), *others = origins.items()
    for name, other in others:
        if different := difference(held, other):
            label, old, new = different
            return f"{label}: {old} in {first}, {new} in {name}"
    needed = ("data_sha256",) if supervised else ("set_id", "teacher_sha256")
    unknown = next((key for key in (*needed, "eval_sha256") if held[key] is None), None)
    return None if unknown is None else f"{DIGESTS[unknown]} ({unknown}): not said by the summary of {first}"


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What differs first between two origins: its name and both values in short. None where nothing does."""
    for path, old, new in differences(dict(a), dict(b)):
        label = f"{DIGESTS[path]} ({path})" if path in DIGESTS else path.removeprefix("config.")
        return label, _short(old), _short(new)
    return None


def _short(text: str) -> str:
    plain = text.strip('"')
    if plain == "null":
        return "nothing"
    return plain if len(plain) <= _MOST_LETTERS else f"{plain[:_MOST_LETTERS]}…"
