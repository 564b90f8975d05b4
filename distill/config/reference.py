"""Every key of a config as text, from the models that check it."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
    "minItems": "of {}",
}


def describe_keys(model: type[BaseModel]) -> str:
    """A line for each key that a config of type ``model`` may have: its values, its default and what it means."""
    schema = model.model_json_schema()
    lines: list[str] = []
    for group, value in schema["properties"].items():
        for variant in _variants(value, schema["$defs"]):
            lines += ["", f"{group}: {variant['description'].splitlines()[0]}"]
            lines += [f"  {row}" for row in _rows(variant, schema["$defs"])]
    return "\n".join(lines[1:])


def _variants(value: Schema, known: Schema) -> list[Schema]:
    """The models a value may be of: one, or one of several."""
    options = value.get("oneOf") or value.get("anyOf") or [value]
    return [known[option["$ref"].rsplit("/", 1)[1]] for option in options if "$ref" in option]


def _rows(schema: Schema, known: Schema, prefix: str = "") -> Iterator[str]:
    for key, value in schema["properties"].items():
        needed = "required" if key in schema.get("required", ()) else _default(value)
        about = value.get("description", "")
        nested = _variants(value, known)
        allowed = "keys below" if nested else _allowed(value)
        yield f"{prefix + key:20s} {', '.join(part for part in (allowed, needed) if part)}{about and ': ' + about}"
        for inner in nested:
            yield from _rows(inner, known, f"{key}.")


def _default(value: Schema) -> str:
    held = value.get("default")
    return (
        ""
        if held is None or isinstance(held, dict)
        else f"default {held if isinstance(held, str) else json.dumps(held)}"
    )


def _allowed(value: Schema) -> str:
    options = [option for option in value.get("anyOf", [value]) if option.get("type") != "null"]
    return " or ".join(_simple(option) for option in options)


def _simple(value: Schema) -> str:
    if "const" in value:
        return str(value["const"])
    if "enum" in value:
        return " | ".join(value["enum"])
    kind = {"array": "list", "boolean": "true or false", "string": value.get("format", "text")}.get(
        value["type"], value["type"]
    )
    return " ".join([str(kind), *(text.format(value[bound]) for bound, text in _BOUNDS.items() if bound in value)])
