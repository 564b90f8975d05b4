"""What a run was made from. Runs have a mean only if they differ in nothing but the seed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distill.config.schema import Config, SupervisedConfig
from distill.data.batches import View
from manifests.diff import differences
from manifests.format.canonical_json import canonical_json

DIGESTS = {
    "set_id": "patch set",
    "data_sha256": "training images",
    "teacher_sha256": "teacher's file",
    "eval_sha256": "evaluation images and labels",
    "config_sha256_without_seed": "config, with the order it gives, without seeds",
}
"""Keys of a summary that runs with a mean share, and their names on a page."""

_IGNORED = {
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
"""Keys that are newer than the first checkpoints; an identity leaves them out where they have these defaults."""


def settings_of_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that changes weights: without paths, caches, logs and evaluation."""
    return {
        group: {key: item for key, item in value.items() if not _is_ignored(group, key, item)}
        if isinstance(value, dict)
        else value
        for group, value in config.items()
        if group not in ("eval", "paper")
    }


def _is_ignored(group: str, key: str, item: Any) -> bool:
    newer = group in ("loss", "optim", "student", "network") and key in _NEWER_KEYS
    return key in _IGNORED.get(group, ()) or (newer and item == _NEWER_KEYS[key])


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config, or the description of a view, without its seed."""
    plain = {key: value for key, value in config.items() if key != "seed"}
    nested = {key: plain[key] for key in ("train", "order") if isinstance(plain.get(key), dict)}
    return plain | {
        key: {name: item for name, item in value.items() if name != "seed"} for key, value in nested.items()
    }


def identity_of(config: Config | SupervisedConfig, **more: Any) -> dict[str, Any]:
    """Return what a checkpoint must share with the run that resumes it: all that changes weights, and no path."""
    settings = settings_of_weights(config.model_dump(mode="json"))
    return {group: json.dumps(value) for group, value in settings.items()} | more


def config_digests(config: Config | SupervisedConfig, view: View, **more: Any) -> dict[str, str]:
    """Return the SHA-256, as hex, of ``config`` and ``view``, with seeds and without, but without paths.

    The second is of ``more`` as well.
    """
    described = view.describe()
    settings = settings_of_weights(config.model_dump(mode="json"))
    seedless = {"config": without_seed(settings), "view": without_seed(described)}
    return {
        "config_sha256": hashlib.sha256(canonical_json(identity_of(config, view=described))).hexdigest(),
        "config_sha256_without_seed": hashlib.sha256(canonical_json(seedless | more)).hexdigest(),
    }


def origin(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs of one mean share: ``config`` without the seed, and the digests of ``summary``, or None."""
    plain = json.loads(json.dumps(config, default=str, skipkeys=True))
    return {"config": without_seed(settings_of_weights(plain))} | {key: summary.get(key) for key in DIGESTS}


def no_mean(origins: Mapping[str, Mapping[str, Any]], *, supervised: bool) -> str | None:
    """Return why evaluated runs of these origins, by name, have no mean: what differs or is not known.

    None if they have one, or are a single run. ``supervised`` runs learned from labels.
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
    """Return the first difference of two origins: its name and both values, shortened; None if they are equal."""
    for path, old, new in differences(dict(a), dict(b)):
        label = f"{DIGESTS[path]} ({path})" if path in DIGESTS else path.removeprefix("config.")
        return label, _short(old), _short(new)
    return None


def _short(text: str) -> str:
    plain = text.strip('"')
    if plain == "null":
        return "nothing"
    return plain if len(plain) <= _MOST_LETTERS else f"{plain[:_MOST_LETTERS]}…"
