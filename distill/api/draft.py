"""Combine the config of a caller with its arguments."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from distill.config import presets
from distill.config.schema import Config, SupervisedConfig, make_config, read_groups
from distill.errors import DistillError
from manifests.support.files import expand_home
from manifests.support.user_code import UserCodeError, importable_name

PathLike = str | Path
ConfigLike = PathLike | Mapping[str, Any]
C = TypeVar("C", Config, SupervisedConfig)


class Draft(Generic[C]):
    """A config of a caller, and the settings that replace its values."""

    def __init__(self, model: type[C], config: ConfigLike, settings: Mapping[str, Any] | None) -> None:
        self._model: type[C] = model
        if not isinstance(given := settings or {}, Mapping) or not all(isinstance(key, str) for key in given):
            found = f"is {str(settings)[:80]}, expected a dict of values by config key"
            raise DistillError(f"settings: {found}, such as {{'optim.lr': 0.001}}; correct it")
        self._settings = {key: _named(value, key) for key, value in given.items()}
        self._given: dict[str, Any] = {}
        self.name, self._where = "python", "from Python"
        if isinstance(config, Mapping):
            self._groups: Mapping[str, Any] = config
            if isinstance(optim := config.get("optim"), Mapping):
                self._groups = {
                    **config,
                    "optim": {key: _named(value, f"optim.{key}") for key, value in optim.items()},
                }
        else:
            self._where = str(config)
            self.name, text = presets.read(presets.CONFIGS, str(to_path(config)))
            self._groups = read_groups(text, self._where)

    def add(self, given: Mapping[str, Any]) -> None:
        """Add the values of arguments by config key."""
        if both := sorted(given.keys() & self._settings.keys()):
            raise DistillError(f"settings {both[0]}: an argument sets this key too; give only one of them")
        self._given |= given

    def stated(self, group: str, key: str) -> Any:
        """Return the value of a key in the settings or in the config, or None."""
        keys = self._groups.get(group)
        return self._settings.get(f"{group}.{key}", keys.get(key) if isinstance(keys, Mapping) else None)

    def parse(self, **more: Any) -> C:
        """Return the config with all settings. ``more`` are further values of the group ``teacher``."""
        given = self._settings | self._given | {f"teacher.{key}": value for key, value in more.items()}
        return make_config(self._groups, self._where, given, self._model)


def _named(value: Any, key: str) -> Any:
    """Return the name of an optimizer or a schedule that is given as a class or a function, else the value itself."""
    if key not in ("optim.name", "optim.schedule") or not callable(value):
        return value
    try:
        return importable_name(value)
    except UserCodeError as error:
        raise DistillError(f"{key}: {error}") from error


def to_path(value: PathLike) -> Path:
    if not isinstance(value, str | os.PathLike):
        shown, kind = " ".join(repr(value).split())[:100], type(value).__name__
        raise DistillError(f"{shown} is a {kind}, expected a path; give a text or a Path")
    try:
        return Path(expand_home(os.fsdecode(value)))
    except ValueError as error:
        raise DistillError(str(error)) from error
