"""What a user says of a table."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TEACHER = "teacher-"
"""Stands before the names of networks, where those of inputs stand too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What a user says of the table called ``name``. ``inputs`` and ``teachers`` are absolute paths by its names.

    ``digests`` are ``pins.pin`` of each path. ``scale`` and ``teacher_scale`` multiply the length
    of runs and of networks. ``settings`` and ``teacher_settings`` override keys of their configs, and what the table
    sets in a row; those of the table's ``variant`` give way to a row's. ``folder`` is where paths in the table start.
    """

    inputs: Mapping[str, Path]
    name: str = ""
    teachers: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    digests: Mapping[Path, str] = dataclasses.field(default_factory=dict)
    scale: float = 1.0
    teacher_scale: float = 1.0
    seeds: tuple[int, ...] = (0,)
    variant: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teacher_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folder: Path = Path()

    def given(self) -> Iterator[tuple[str, Path]]:
        """Every path, with a name that no other has."""
        yield from self.inputs.items()
        for name, path in self.teachers.items():
            yield TEACHER + name, path
