"""Decorators for the options that several commands share. A decorator adds one or several options."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from distill.config import presets
from distill.evaluation import SET_NAME
from distill.weights.normalization import check_mean, check_std
from manifests.remote.cli_location import LocalPath, Location, NameOrPath, local_folder
from manifests.support.cli_options import allow_import_option

if TYPE_CHECKING:
    from distill.config.schema import Config, SupervisedConfig
    from distill.runtime.distributed import Ranks, RunContext

C = TypeVar("C", "Config", "SupervisedConfig")
FILE = LocalPath()
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def parse_settings(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Parse the texts ``KEY=VALUE`` of an option; return the values by key."""
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: expected KEY=VALUE, such as optim.lr=0.001")
        from manifests.support.yaml_core import parse_yaml  # noqa: PLC0415 - --help needs no YAML parser

        try:
            settings[key.strip()] = parse_yaml(text)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}; correct the value") from error
    return settings


def parse_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse a text such as ``0,1,2``; return the numbers, which must all be different."""
    if value is None:
        return None
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected whole numbers with commas, such as 0,1,2") from error
    if len(set(numbers)) < len(numbers) or not 0 <= min(numbers) <= max(numbers) < 2**53:
        raise click.BadParameter(f"{value!r}: expected different numbers, each from 0 to 2^53 - 1")
    return numbers


def _parse_triple(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected three numbers with commas, such as 0.5,0.4,0.4") from error
    try:
        return (check_mean if parameter.name == "mean" else check_std)((red, green, blue))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


def join(*decorators: Decorator) -> Decorator:
    """Return a decorator that adds several options. The help text lists the options in the same order."""
    return lambda command: functools.reduce(lambda inner, add: add(inner), reversed(decorators), command)


def _eval_settings(values: tuple[Path, ...]) -> dict[str, Any]:
    """Return the config keys that the values of ``--eval`` set. The last set without a name counts."""
    settings: dict[str, Any] = {}
    named: dict[str, Path] = {}
    for path in values:
        name, equals, rest = str(path).partition("=")
        is_named = bool(equals and re.match(SET_NAME, name)) and not os.path.lexists(path)
        if is_named and name in named:
            raise click.BadParameter(f"two sets have the name {name!r}; choose another name.")
        if is_named:
            named[name] = FILE.convert(rest, None, None)
        else:
            settings["eval.data"] = path
    return settings | ({"eval.sets": named} if named else {})


device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
eval_option = click.option(
    "--eval",
    "eval_data",
    multiple=True,
    type=FILE,
    metavar="[NAME=]DATA",
    callback=lambda context, parameter, values: _eval_settings(values),
    help="Labelled test data; sets eval.data, or with a name eval.sets.",
)
config_options = join(
    click.option("--config", "config_name", required=True, type=NameOrPath(), help="A YAML file or packaged config."),
    click.option("--set", "settings", multiple=True, callback=parse_settings, help="Set a key: optim.lr=0.001."),
    allow_import_option,
    device_option,
)
distillation_options = join(
    click.option("--shards", required=True, type=Location(), help="A patch set: its folder or URL."),
    click.option("--teacher", type=FILE, help="The teacher's weight file; sets teacher.weights."),
    config_options,
)
_TRIPLE: dict[str, Any] = {"callback": _parse_triple, "help": "R,G,B from 0 to 1 [default: that of the weight file]."}
network_options = join(
    click.option("--arch", help="Network name [default: that of the weight file]."),
    click.option("--mean", **_TRIPLE),
    click.option("--std", **_TRIPLE),
    allow_import_option,
)


def download(shards: Path | str, check_inputs: Callable[[], None]) -> Path:
    """Return the folder of a patch set. For a set at a URL, call ``check_inputs`` and then download the set."""
    if not isinstance(shards, Path):
        check_inputs()
    return local_folder(shards)


def parse_run(
    model: type[C], files: dict[str, Any], values: dict[str, Any], ranks: "Ranks | None" = None
) -> tuple[str, C, "RunContext"]:
    """Return the name of a config, the config with the settings and files of the user, and the context of the run.

    ``values`` are the values of ``config_options``. ``files`` maps config keys to paths, or to None if not given.
    """
    from distill.config.schema import parse_config  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415
    from distill.runtime.distributed import SINGLE_PROCESS, RunContext  # noqa: PLC0415

    settings, given = values["settings"], {key: path for key, path in files.items() if path is not None}
    for key in given.keys() & settings.keys():
        option = {"teacher.weights": "--teacher", "teacher.logits": "--teacher-logits"}.get(key, "--eval")
        raise click.UsageError(f"--set {key} and {option} are both given; give only one of them.")
    config_name, ranks = values["config_name"], ranks or SINGLE_PROCESS
    name, text = presets.read(presets.CONFIGS, config_name)
    config = parse_config(text, config_name, settings | given, model)
    return name, config, RunContext(device=pick_device(values["device"], ranks), ranks=ranks)
