"""Commands and messages without the paths of one machine: inputs as shell variables, other files by name alone."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.tables.options import TEACHER, Wish

_ABSOLUTE = re.compile(r'(^|=)("?)(/[^"]*)("?)$')


def variable(name: str) -> str:
    """The shell variable that stands for an input, or for a network's file."""
    plain = name.upper().replace(".", "__").replace("-", "_")
    return f"_{plain}" if plain[0].isdigit() else plain


def command(words: Iterable[str], wish: Wish) -> str:
    """A command as a shell takes it on any machine."""
    known = {str(path): f'"${variable(name)}"' for name, path in wish.given()}
    return " ".join(known.get(word) or shlex.quote(_without_folder(word)) for word in words)


def text(said: str, wish: Wish) -> str:
    """What a program said, with inputs as variables."""
    for name, path in sorted(wish.given(), key=lambda item: -len(str(item[1]))):
        said = said.replace(str(path), f"${variable(name)}")
    return said


def _without_folder(word: str) -> str:
    """A path by its name alone, also where a setting is one: ``data.cache_dir="/a/b"`` is ``data.cache_dir="b"``."""
    return _ABSOLUTE.sub(lambda found: f"{found[1]}{found[2]}{Path(found[3]).name}{found[4]}", word)


def setting(key: str, value: Any) -> str:
    """A setting as ``--set`` takes it."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def whole_command(wish: Wish, only: Iterable[str] = ()) -> str:
    """The command that makes a table's rows that ``only`` chooses; without, the whole table."""
    words = ["distill", "reproduce", wish.name]
    parts = []
    for option, paths, prefix in (("--input", wish.inputs, ""), ("--teacher", wish.teachers, TEACHER)):
        parts += [f'{option} {name}="${variable(prefix + name)}"' for name in paths]
    words += [word for pattern in only for word in ("--only", pattern)]
    if wish.scale != 1:
        words += ["--scale", repr(wish.scale)]
    if wish.teacher_scale != wish.scale:
        words += ["--teacher-scale", repr(wish.teacher_scale)]
    if wish.variant is not None:
        words += ["--variant", wish.variant]
    if wish.seeds != (0,):
        words += ["--seeds", ",".join(map(str, wish.seeds))]
    options: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("--set", wish.settings),
        ("--teacher-set", wish.teacher_settings),
    )
    for option, settings in options:
        words += [word for key, value in settings.items() for word in (option, setting(key, value))]
    quoted = [shlex.quote(_without_folder(word)) for word in words]
    return " ".join([*quoted[:3], *parts, *quoted[3:]])
