"""Convert values of a YAML file for a pydantic model, and describe a validation error in one line."""

import difflib
import reprlib
import types
import typing
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Tag, ValidationError

from manifests.support.counts import counted
from manifests.support.files import expand_home
from manifests.support.redaction import redact

HomePath = Annotated[Path, BeforeValidator(lambda value: expand_home(value) if isinstance(value, str) else value)]
"""A path that may begin with ``~`` or ``~USER``. This beginning is replaced by a home folder."""

_REPR = reprlib.Repr()  # a value may be huge, because YAML aliases can repeat it
_REPR.maxlevel, _REPR.maxdict, _REPR.maxlist, _REPR.maxstring = 2, 4, 4, 60


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe the main fault of a validation error of ``model`` in one line. The caller adds the file name."""
    faults = error.errors(include_url=False)
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    missing = [f["loc"] for f in faults if f["type"] == "missing"]
    if fault["type"] == "missing" and len(missing) > 1:
        names = ", ".join(repr(_path(_keys(model, loc)[0])) for loc in missing)
        return f"required keys {names} are missing"
    more = f" (and {counted(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
    return _describe(fault, model) + more


def _describe(fault: Any, model: type[BaseModel]) -> str:
    keys, parent = _keys(model, fault["loc"])
    path = _path(keys)
    start = f"{path}: " if path else ""
    context = fault.get("ctx", {})
    tag = f"{path}.{context.get('discriminator', '').strip(chr(39))}"
    shown = _REPR.repr(redact(value) if isinstance(value := fault.get("input"), str) else value)
    shown = value if value in ("true", "false") else shown  # ``read_counts`` makes texts of bools
    message = (
        " ".join(str(fault["msg"]).partition(", unable to parse")[0].split())
        .replace("valid tuple", "list")
        .replace("valid array", "list")
    )
    messages = {
        "missing": f"required key {path!r} is missing",
        "union_tag_not_found": f"required key {tag!r} is missing",
        "union_tag_invalid": f"{tag} is {context.get('tag')!r}, expected one of {context.get('expected_tags')}",
        "invalid_key": f"{_path([*keys[:-1], str(value).lower()])}: this key is not a text; write the key in quotes",
        "value_error": start + str(fault["msg"]).removeprefix("Value error, "),
    }
    if fault["type"] == "extra_forbidden":
        return f"unknown key {path!r}; {_nearest(keys, parent)}"
    return messages.get(fault["type"], f"{start}{message}, got {shown}")


def _path(keys: list[int | str]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _nearest(keys: list[int | str], model: type[BaseModel] | None) -> str:
    known = sorted(model.model_fields) if model else []
    near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {_path([*keys[:-1], near[0]])!r}?" if near else f"known keys are {', '.join(known)}"


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[int | str], type[BaseModel] | None]:
    """Return the keys in ``loc``, the location of an error, without tags. Also return the model with the last key."""
    keys: list[int | str] = []
    parent: type[BaseModel] | None = model
    current: Any = model
    for part in loc:
        if (inner := _of_tag(current, part)) is not None:
            current = inner
            continue
        arguments, members = typing.get_args(current), _members(current)
        tagged = [model for model, tags in members if len(members) > 1 and part in tags]
        if tagged and not isinstance(part, int):
            current = tagged[0]
            continue
        keys.append(part)
        if isinstance(part, int):
            current = arguments[0] if arguments else None
        elif typing.get_origin(current) is dict:
            current = arguments[1]
        else:
            parent = members[0][0] if members else None
            field = parent.model_fields.get(part) if parent else None
            current = field.annotation if field else None
    return keys, parent


def _of_tag(annotation: Any, tag: int | str) -> Any:
    """Return the list or union that ``tag`` selects in a union, or None."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    for member in typing.get_args(annotation):
        inner, *metadata = typing.get_args(member) if typing.get_origin(member) is typing.Annotated else (member,)
        if typing.get_origin(inner) is not None and any(isinstance(m, Tag) and m.tag == tag for m in metadata):
            return inner
    return None


def _members(annotation: Any, tags: frozenset[Any] = frozenset()) -> list[tuple[type[BaseModel], frozenset[Any]]]:
    """Return (model, tags) for each model that an annotation allows. The tags select the model in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = (field.annotation for field in annotation.model_fields.values())
        literals = (f for f in fields if typing.get_origin(f) is typing.Literal)
        return [(annotation, tags | {value for literal in literals for value in typing.get_args(literal)})]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for argument in typing.get_args(annotation) for member in _members(argument, tags)]
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        return _members(inner, tags | {item.tag for item in metadata if isinstance(item, Tag)})
    return []


def read_counts(value: Any, annotation: Any) -> Any:
    """Convert whole floats in a YAML value to int where ``annotation`` allows an int but no float.

    ``annotation`` is a pydantic model or the type of a field. Where a number but no bool is allowed, convert a bool
    to a str, so that pydantic refuses the value. Otherwise pydantic would read ``true`` as 1.
    """
    allowed = _alternatives(annotation)
    if isinstance(value, dict):
        return {key: read_counts(item, _of_key(key, allowed)) for key, item in value.items()}
    if isinstance(value, list):
        return [read_counts(item, _of_items(allowed)) for item in value]
    if Any in allowed:
        return value
    kinds = {type(choice) for each in allowed for choice in typing.get_args(each)} | set(allowed)
    if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        return int(value)
    return value


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or ``(annotation,)`` for another type. Remove the metadata of ``Annotated``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _alternatives(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(each for argument in arguments for each in _alternatives(argument))
    return (annotation,)


def _of_key(key: Any, allowed: tuple[Any, ...]) -> Any:
    """Return the type that the models and dicts in ``allowed`` declare for the value of ``key``."""
    models = [each for each in allowed if isinstance(each, type) and issubclass(each, BaseModel)]
    found = [each.model_fields[key].annotation for each in models if key in each.model_fields]
    free = [Any for each in models if key not in each.model_fields and each.model_config.get("extra") == "allow"]
    return _union([*found, *free, *(typing.get_args(each)[1] for each in allowed if typing.get_origin(each) is dict)])


def _of_items(allowed: tuple[Any, ...]) -> Any:
    lists = (typing.get_args(each) for each in allowed if typing.get_origin(each) in (list, tuple))
    return _union([argument for arguments in lists for argument in arguments if argument is not ...])


def _union(annotations: list[Any]) -> Any:
    return typing.Union[tuple(annotations)] if annotations else Any  # noqa: UP007 - of a tuple
