"""Commands and messages without local paths: inputs as shell variables, other files by name only."""

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill.tables.options import TEACHER_PREFIX, TableOptions

_ABSOLUTE = re.compile(r'(^|=)("?)(/[^"]*)("?)$')


def variable(name: str) -> str:
    """Return the name of the shell variable that stands for an input or a given network."""
    plain = name.upper().replace(".", "__").replace("-", "_")
    return f"_{plain}" if plain[0].isdigit() else plain


def redact_command(words: Iterable[str], options: TableOptions) -> str:
    """Return a shell command that is valid on any machine."""
    known = {str(path): f'"${variable(name)}"' for name, path in options.given_paths()}
    return " ".join(known.get(word) or shlex.quote(_without_folder(word)) for word in words)


def redact_text(text: str, options: TableOptions) -> str:
    """Return a message with the paths of inputs replaced by variables."""
    for name, path in sorted(options.given_paths(), key=lambda item: -len(str(item[1]))):
        text = text.replace(str(path), f"${variable(name)}")
    return text


def _without_folder(word: str) -> str:
    """Reduce an absolute path to its name, also as a setting: ``data.cache_dir="/a/b"`` is ``data.cache_dir="b"``."""
    return _ABSOLUTE.sub(lambda found: f"{found[1]}{found[2]}{Path(found[3]).name}{found[4]}", word)


def setting(key: str, value: Any) -> str:
    """Return a setting as ``--set`` takes it."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def table_command(options: TableOptions, only: Iterable[str] = ()) -> str:
    """Return the redacted ``distill reproduce`` command for the rows that ``only`` selects; all rows without it."""
    paths = [f'--input {name}="${variable(name)}"' for name in options.inputs]
    paths += [f'--teacher {name}="${variable(TEACHER_PREFIX + name)}"' for name in options.teachers]
    words = [word for pattern in only for word in ("--only", pattern)]
    if options.scale != 1:
        words += ["--scale", repr(options.scale)]
    if options.teacher_scale != options.scale:
        words += ["--teacher-scale", repr(options.teacher_scale)]
    if options.variant is not None:
        words += ["--variant", options.variant]
    if options.seeds != (0,):
        words += ["--seeds", ",".join(map(str, options.seeds))]
    words += [word for key, value in options.settings.items() for word in ("--set", setting(key, value))]
    words += [
        word for key, value in options.teacher_settings.items() for word in ("--teacher-set", setting(key, value))
    ]
    name, *rest = (shlex.quote(_without_folder(word)) for word in (options.name, *words))
    return " ".join(["distill reproduce", name, *paths, *rest])
