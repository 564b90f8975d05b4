"""Read and write short YAML 1.2 texts (core schema, https://yaml.org/spec/1.2.2/#103-core-schema).

PyYAML reads YAML 1.1, where ``010`` is 8, ``1:30`` is 90, ``yes`` is true and ``1e6`` is a text. In YAML 1.2, ``010``
is 10, ``0o10`` is 8, ``1e6`` is a number, only ``true`` and ``false`` are booleans, and dates are texts.
"""

import re
import textwrap
from collections.abc import Callable
from typing import Any

import yaml

from manifests.support.numbers import DECIMAL, INTEGER, MAX_LETTERS, to_int

_MAX_TEXT = 1 << 17
_MAX_NODES = 20_000
_MAX_KEYS = 1000
_TAG = "tag:yaml.org,2002:"

_SCALARS = (  # type, pattern of a whole scalar, characters it may begin with
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", INTEGER, "-+0123456789"),
    ("float", rf"{DECIMAL}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),  # of YAML 1.1: mappings may share keys
)


class _Loader(yaml.SafeLoader):
    """A loader that uses only the patterns in ``_SCALARS`` to find the type of a scalar."""


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in ("null", "str", "seq", "map")  # None refuses all other tags
}


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes a text if YAML 1.1 or 1.2 would read the unquoted text as another type."""


def parse_yaml(text: str) -> Any:
    """Parse a YAML text into dict, list, str, int, float, bool and None."""
    if len(text) > _MAX_TEXT or text.count("[") + text.count("{") > _MAX_NODES:
        most = f"{_MAX_TEXT} characters" if len(text) > _MAX_TEXT else f"{_MAX_NODES} lists and mappings"
        raise ValueError(f"the YAML text has more than {most}")
    try:
        node = yaml.compose(text, _Loader)
        if node is not None:
            _require_plain(node)
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise ValueError("the text is not YAML: it is nested too deeply") from error
    # PyYAML's constructors do not catch the errors of int() and dict look-ups.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"the text is not YAML: {textwrap.shorten(str(error), 200, placeholder=' …')}") from error


def dump_yaml(value: Any) -> str:
    """Return ``value`` as a YAML text. ``parse_yaml`` and readers of YAML 1.1 read the same value from this text."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def _require_plain(root: yaml.Node) -> None:
    """Raise ValueError for duplicate keys, NUL, overlong numbers, circular aliases, or too many keys or values."""
    sizes: dict[int, int | None] = {}

    def measure(node: yaml.Node) -> int:
        if id(node) in sizes:
            if (known := sizes[id(node)]) is None:
                raise ValueError("an alias refers to a value that contains the alias")
            return known
        sizes[id(node)] = None
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise ValueError("a text contains a NUL character")
        if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > MAX_LETTERS:
            raise ValueError(f"a number has {len(node.value)} characters, expected at most {MAX_LETTERS}")
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in children if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None) if len(keys) <= _MAX_KEYS else ""
            if twice is not None:
                what = f"the key {twice!r} appears twice" if twice else f"a mapping has more than {_MAX_KEYS} keys"
                raise ValueError(what)
            children = [part for pair in children for part in pair]
        total = 1 + sum(measure(child) for child in children)
        if total > _MAX_NODES:
            raise ValueError(f"the text has more than {_MAX_NODES} values after its aliases are expanded")
        sizes[id(node)] = total
        return total

    measure(root)


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": to_int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


def _construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    return _CONVERTERS[node.tag.removeprefix(_TAG)](str(loader.construct_scalar(node)))


for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))
    if _name in _CONVERTERS:
        _Loader.add_constructor(_TAG + _name, _construct)
