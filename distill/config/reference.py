"""Generate the reference of config keys from the pydantic models."""

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
    """Return one line for each key of a config of type ``model``: allowed values, default, description."""
    schema = model.model_json_schema()
    lines: list[str] = []
    for group, value in schema["properties"].items():
        for variant in _variants(value, schema["$defs"]):
            lines += ["", f"{group}: {variant['description'].splitlines()[0]}"]
            lines += [f"  {row}" for row in _rows(variant, schema["$defs"])]
    return "\n".join(lines[1:])


def _variants(value: Schema, known: Schema) -> list[Schema]:
    """Return the schemas of the models that the schema ``value`` refers to. ``known`` contains all schemas."""
    options = value.get("oneOf") or value.get("anyOf")
    if options:
        return [variant for option in options for variant in _variants(option, known)]
    return [known[value["$ref"].rsplit("/", 1)[1]]] if "$ref" in value else []


def _rows(schema: Schema, known: Schema, prefix: str = "") -> Iterator[str]:
    for key, value in schema["properties"].items():
        nested = _variants(value, known)
        options = [option for option in value.get("anyOf", [value]) if option.get("type") != "null"]
        allowed = "keys below" if nested else " or ".join(_simple(option) for option in options)
        default = "required" if key in schema.get("required", ()) else _default(value.get("default"))
        about = value.get("description", "")
        yield f"{prefix + key:20s} {', '.join(part for part in (allowed, default) if part)}{about and ': ' + about}"
        for inner in nested:
            yield from _rows(inner, known, f"{key}.")


def _default(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    return f"default {value if isinstance(value, str) else json.dumps(value)}"


def _simple(value: Schema) -> str:
    if "const" in value:
        return str(value["const"])
    if "enum" in value:
        return " | ".join(value["enum"])
    kinds = {"array": "list", "boolean": "true or false", "object": "keys with values"}
    kinds["string"] = value.get("format", "text")
    kind = str(kinds.get(value["type"], value["type"]))
    return " ".join([kind, *(text.format(value[bound]) for bound, text in _BOUNDS.items() if bound in value)])
