"""The options of ``distill reproduce``, and functions that remove local paths from commands and messages."""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TEACHER_PREFIX = "teacher-"  # begins the name of a given network in a list with inputs
_ABSOLUTE = re.compile(r'(^|=)("?)(/[^"]*)("?)$')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The options of the user for one table."""

    inputs: Mapping[str, Path]  # absolute paths by the table's names of inputs
    name: str = ""  # the table's name or file name
    teachers: Mapping[str, Path] = dataclasses.field(default_factory=dict)  # absolute paths by name of the network
    digests: Mapping[Path, str] = dataclasses.field(default_factory=dict)  # the ``input_digest`` of each path
    scale: float = 1.0  # factor of the length of students' runs
    teacher_scale: float = 1.0  # factor of the length of runs from labels
    seeds: tuple[int, ...] = (0,)
    variant: str | None = None  # a name of settings in the table, which the settings of a run override
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # override the settings of every run
    teacher_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for every run from labels
    folder: Path = Path()  # the folder of the table's file; paths in the table are relative to this folder

    def given_paths(self) -> dict[str, Path]:
        """Return the paths of all inputs and weight files that the user gave, by unique names."""
        return {**self.inputs, **{TEACHER_PREFIX + name: path for name, path in self.teachers.items()}}

    def redact_command(self, words: Iterable[str]) -> str:
        """Return a shell command without local paths: inputs become variables, other paths become file names."""
        known = {str(path): f'"${variable(name)}"' for name, path in self.given_paths().items()}
        return " ".join(known.get(word) or _quote(word) for word in words)

    def redact_text(self, text: str) -> str:
        """Return ``text`` with shell variables instead of the paths that the user gave."""
        for name, path in sorted(self.given_paths().items(), key=lambda item: -len(str(item[1]))):
            text = text.replace(str(path), f"${variable(name)}")
        return text

    def command(self, only: Iterable[str] = ()) -> str:
        """Return the ``distill reproduce`` command without local paths. ``only`` are the values of --only."""
        words = [f'--input {name}="${variable(name)}"' for name in self.inputs]
        words += [f'--teacher {name}="${variable(TEACHER_PREFIX + name)}"' for name in self.teachers]
        words += [f"--only {_quote(pattern)}" for pattern in only]
        words += [f"--scale {self.scale!r}"] if self.scale != 1 else []
        words += [f"--teacher-scale {self.teacher_scale!r}"] if self.teacher_scale != self.scale else []
        words += [f"--variant {_quote(self.variant)}"] if self.variant else []
        words += [f"--seeds {','.join(map(str, self.seeds))}"] if self.seeds != (0,) else []
        words += [f"--set {_quote(word)}" for word in format_settings(self.settings)]
        words += [f"--teacher-set {_quote(word)}" for word in format_settings(self.teacher_settings)]
        return " ".join(["distill reproduce", _quote(self.name), *words])


def variable(name: str) -> str:
    """Return the name of the shell variable for the path of an input or a given network."""
    plain = name.upper().replace(".", "__").replace("-", "_")
    return f"_{plain}" if plain[0].isdigit() else plain


def format_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting as ``KEY=VALUE`` for the option ``--set``."""
    for key, value in settings.items():
        yield f"{key}={json.dumps(value, ensure_ascii=False)}"


def _quote(word: str) -> str:
    """Quote a word for a shell. Replace an absolute path, alone or in a setting, by the file name."""
    return shlex.quote(_ABSOLUTE.sub(lambda found: f"{found[1]}{found[2]}{Path(found[3]).name}{found[4]}", word))
