"""Read names of networks with arguments, such as ``timm/vit_tiny_patch16_224(img_size=32)``."""

import ast
import math
from collections.abc import Mapping
from typing import Any

from distill.errors import DistillError

MAX_LETTERS = 1000  # of a name with its arguments, which may have the path of a folder
TIMM, HF = "timm/", "hf/"
ARGUMENTS = "arguments of a network of timm, transformers or your own; they become part of arch"
_EXAMPLE = "write them as NAME(depth=12, act='relu')"


def split_arch(arch: str) -> tuple[str, dict[str, Any]]:
    """Split a text ``NAME(key=value, …)`` into the name and the arguments. The values are Python literals."""
    if not arch.endswith(")") or "(" not in arch:
        return arch, {}
    if len(arch) > MAX_LETTERS:
        raise DistillError(
            f"arch {arch[:60]!r}…: has {len(arch)} letters, expected at most {MAX_LETTERS}; shorten it"
        )
    name, _, text = arch[:-1].partition("(")
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError("they need names")
        arguments = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords if each.arg is not None}
        if len(arguments) < len(call.keywords) or not all(map(_is_literal, arguments.values())):
            raise ValueError("they must be numbers, texts, lists and dicts")
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise DistillError(f"arch {arch[:100]!r}: the arguments cannot be read; {_EXAMPLE}") from error
    return name, arguments


def join_arch(arch: str, arguments: Mapping[str, Any]) -> str:
    """Return the text that ``split_arch`` splits into ``arch`` and ``arguments``. Raises ValueError if it cannot."""
    if not arguments:
        return arch
    if arch.endswith(")"):
        raise ValueError(f"arch {arch[:60]} already has arguments; give them only once")
    if bad := [key for key, value in arguments.items() if not str(key).isidentifier() or not _is_literal(value)]:
        raise ValueError(f"arch_arguments: {bad[0]!r} is not a name with a plain value; {_EXAMPLE}")
    return f"{arch}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def is_own(arch: str) -> bool:
    """Return whether ``arch`` names code of the user, ``package.module:callable``."""
    return ":" in arch.partition("(")[0] and not arch.startswith((TIMM, HF))


def is_foreign(arch: str) -> bool:
    """Return whether the network comes from timm, transformers or the user, and so may do anything in a call."""
    return arch.startswith((TIMM, HF)) or is_own(arch)


def _is_literal(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_literal(each) for key, each in value.items())
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def fold_arguments(value: Any) -> Any:
    """Move ``arch_arguments`` of a group of a config into the text of ``arch``, which weight files record."""
    if not isinstance(value, dict) or not isinstance(value.get("arch_arguments"), dict):
        return value
    given = dict(value)
    arguments = given.pop("arch_arguments")
    return given | {"arch": join_arch(str(given.get("arch", "")), arguments)}
