"""Convert values of a YAML file for a pydantic model: ``1e6`` is a whole number, and ``~`` is the home folder."""

import types
import typing
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from manifests.support.files import expand_home

HomePath = Annotated[Path, BeforeValidator(lambda value: expand_home(value) if isinstance(value, str) else value)]
"""A path that may begin with ``~`` or ``~USER``. This beginning is replaced by a home folder."""


def read_counts(value: Any, annotation: Any) -> Any:
    """Return a YAML value with whole floats converted to int, where ``annotation`` allows an int but no float.

    ``annotation`` is a pydantic model or the type of a field. Where only a number is allowed, a bool becomes a text,
    so that pydantic refuses it. Otherwise pydantic would read ``true`` as 1.
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
    """Return the members of a union, or the annotation itself if it is not a union. Metadata is removed."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _alternatives(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(each for argument in arguments for each in _alternatives(argument))
    return (annotation,)


def _of_key(key: Any, allowed: tuple[Any, ...]) -> Any:
    """Return the annotation of the value of ``key`` in the models and dicts among ``allowed``."""
    models = [each for each in allowed if isinstance(each, type) and issubclass(each, BaseModel)]
    found = [each.model_fields[key].annotation for each in models if key in each.model_fields]
    free = [Any for each in models if key not in each.model_fields and each.model_config.get("extra") == "allow"]
    return _union([*found, *free, *(typing.get_args(each)[1] for each in allowed if typing.get_origin(each) is dict)])


def _of_items(allowed: tuple[Any, ...]) -> Any:
    lists = (typing.get_args(each) for each in allowed if typing.get_origin(each) in (list, tuple))
    return _union([argument for arguments in lists for argument in arguments if argument is not ...])


def _union(annotations: list[Any]) -> Any:
    return typing.Union[tuple(annotations)] if annotations else Any  # noqa: UP007 - of a tuple
