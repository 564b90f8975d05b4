"""What the user chose for a table on the command line, and how it is shown without local paths."""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TEACHER_PREFIX = "teacher-"  # stands before the names of given networks where they are listed with inputs
_ABSOLUTE = re.compile(r'(^|=)("?)(/[^"]*)("?)$')


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

    def given_paths(self) -> dict[str, Path]:
        """Return every given path by a unique name."""
        return {**self.inputs, **{TEACHER_PREFIX + name: path for name, path in self.teachers.items()}}

    def redact_command(self, words: Iterable[str]) -> str:
        """Return a shell command that is valid on any machine: inputs as variables, other files by name only."""
        known = {str(path): f'"${variable(name)}"' for name, path in self.given_paths().items()}
        return " ".join(known.get(word) or _quote(word) for word in words)

    def redact_text(self, text: str) -> str:
        """Return a message with the paths of inputs replaced by variables."""
        for name, path in sorted(self.given_paths().items(), key=lambda item: -len(str(item[1]))):
            text = text.replace(str(path), f"${variable(name)}")
        return text

    def command(self, only: Iterable[str] = ()) -> str:
        """Return the redacted ``distill reproduce`` command for the rows that ``only`` selects; all without it."""
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
    """Return the name of the shell variable that stands for an input or a given network."""
    plain = name.upper().replace(".", "__").replace("-", "_")
    return f"_{plain}" if plain[0].isdigit() else plain


def format_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield settings as ``--set`` takes them."""
    for key, value in settings.items():
        yield f"{key}={json.dumps(value, ensure_ascii=False)}"


def _quote(word: str) -> str:
    """Quote a word for a shell; of an absolute path, also in a setting, only the name: ``data.cache_dir="b"``."""
    return shlex.quote(_ABSOLUTE.sub(lambda found: f"{found[1]}{found[2]}{Path(found[3]).name}{found[4]}", word))
