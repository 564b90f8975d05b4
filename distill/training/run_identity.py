"""Compare runs by their identity: the settings and data that decide the weights."""

import hashlib
import json
from collections.abc import Callable, Mapping
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
    "eval_transform": "resize and crop of evaluation images",
    "config_sha256_without_seed": "config and sample order, without seeds",
}
"""Keys of a summary whose values are equal in all runs of a mean, and their labels in reports."""

_NO_EFFECT = {
    "data": ("workers", "cache", "cache_dir", "window"),
    "train": ("checkpoint_seconds", "log_steps", "snapshots", "tensorboard"),
    "student": ("init",),
    "teacher": ("weights", "logits", "labels", "classes", "others"),  # a digest of the file decides, not its path
}
"""Keys of each group of a config that do not change the weights."""
_LATER_KEYS: dict[str, Any] = {"milestones": [], "gamma": None, "warmup": 0.0, "betas": [0.9, 0.999], "eps": 1e-8}
_LATER_KEYS |= {"no_decay": None, "clip_norm": None, "accumulate": None, "schedule_arguments": None}
_LATER_KEYS |= {"bn_momentum": None, "bn_eps": None, "weight": 1.0, "arguments": None, "head": None}
"""Keys that checkpoints of earlier versions lack, with defaults. An identity omits a key with the default value."""
_LATER_OF_GROUP = {
    "teacher": ("size", "interpolation", "classes", "weight", "others", "combine", "arch_arguments"),
    "student": ("mean", "std", "arch_arguments"),
    "network": ("arch_arguments",),
}
"""Keys of a group that an identity omits if they are None."""
_SHOWN_LETTERS = 16


def weight_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` (nested dicts) without keys that do not change the weights, such as paths and logging."""
    return _select({group: value for group, value in config.items() if group not in ("eval", "paper")}, _has_effect)


def _select(config: Mapping[str, Any], keep: Callable[[str, str, Any], bool]) -> dict[str, Any]:
    """Return ``config`` with only those keys of its groups for which ``keep(group, key, value)`` is true."""
    groups = {group: value for group, value in config.items() if isinstance(value, dict)}
    return dict(config) | {g: {k: v for k, v in value.items() if keep(g, k, v)} for g, value in groups.items()}


def _has_effect(group: str, key: str, item: Any) -> bool:
    if group in ("loss", "optim", "student", "network") and key in _LATER_KEYS:
        return bool(item != _LATER_KEYS[key])
    if item is None and key in _LATER_OF_GROUP.get(group, ()):
        return False
    return key not in _NO_EFFECT.get(group, ())


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` without seeds. ``config`` is a config as nested dicts, or the result of ``View.describe``."""
    seedless = {key: value for key, value in config.items() if key != "seed"}
    return _select(seedless, lambda group, key, _: group not in ("train", "order") or key != "seed")


def identity_of(config: Config | SupervisedConfig, **more: Any) -> dict[str, Any]:
    """Return values that must be equal when a run is resumed: ``more``, and a JSON text for each settings group."""
    settings = weight_settings(config.model_dump(mode="json"))
    return {group: json.dumps(value) for group, value in settings.items()} | more


def config_digests(config: Config | SupervisedConfig, view: View, **more: Any) -> dict[str, str]:
    """Return two SHA-256 digests, as hex, of ``config`` and ``view``: with seeds and without seeds.

    Paths do not change a digest. The digest without seeds also covers ``more``.
    """
    described = view.describe()
    settings = weight_settings(config.model_dump(mode="json"))
    seedless = {"config": without_seed(settings), "view": without_seed(described)}
    contents = {"config_sha256": identity_of(config, view=described), "config_sha256_without_seed": seedless | more}
    return {key: hashlib.sha256(canonical_json(content)).hexdigest() for key, content in contents.items()}


def run_identity(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that must be equal in all runs of a mean: settings in ``config``, digests in ``summary``."""
    plain = json.loads(json.dumps(config, default=str, skipkeys=True))
    return {"config": without_seed(weight_settings(plain))} | {key: summary.get(key) for key in DIGESTS}


def why_no_mean(identities: Mapping[str, Mapping[str, Any]], *, supervised: bool) -> str | None:
    """Return the reason why runs have no mean, or None if the runs have one.

    ``identities`` maps names of runs to the results of ``run_identity``. ``supervised`` runs are trained from labels.
    """
    if len(identities) < 2:
        return None
    (name, identity), *others = identities.items()
    for other_name, other in others:
        if different := first_difference(identity, other):
            label, old, new = different
            return f"{label} is {old} in {name}, but {new} in {other_name}"
    needed = ("data_sha256",) if supervised else ("set_id", "teacher_sha256")
    unknown = next((key for key in (*needed, "eval_sha256") if identity[key] is None), None)
    return None if unknown is None else f"the summary of {name} lacks {unknown} ({DIGESTS[unknown]})"


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return a label and both values, shortened, of the first difference between ``a`` and ``b``; None if equal."""
    for path, old, new in differences(dict(a), dict(b)):
        label = f"{DIGESTS[path]} ({path})" if path in DIGESTS else path.removeprefix("config.")
        return (label, old, new) if _shorten(old) == _shorten(new) else (label, _shorten(old), _shorten(new))
    return None


def _shorten(text: str) -> str:
    plain = "nothing" if text == "null" else text.strip('"')
    return plain if len(plain) <= _SHOWN_LETTERS else f"{plain[:_SHOWN_LETTERS]}…"
