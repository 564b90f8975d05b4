"""What the user chose for a table on the command line."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TEACHER_PREFIX = "teacher-"
"""Stands before the names of given networks where they are listed with inputs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The options for the table called ``name``; ``inputs`` and ``teachers`` are absolute paths by the table's names.

    ``digests`` are the ``input_digest`` of each path. ``scale`` and ``teacher_scale`` multiply the length of runs and
    of networks. ``settings`` and ``teacher_settings`` override keys of their configs, also those that a row sets;
    those of the table's ``variant`` do not override a row's. Paths in the table are relative to ``folder``.
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

    def given_paths(self) -> Iterator[tuple[str, Path]]:
        """Yield every given path with a unique name."""
        yield from self.inputs.items()
        for name, path in self.teachers.items():
            yield TEACHER_PREFIX + name, path
