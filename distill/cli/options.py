"""Options that several commands share: one decorator each."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.config import presets
from distill.weights.normalization import check_mean, check_std
from manifests.remote.cli_location import LocalPath, Location, NameOrPath, local_folder

if TYPE_CHECKING:
    from distill.config.schema import Config

FILE = LocalPath()

OPTIONS = {"teacher.weights": "teacher", "teacher.logits": "teacher-logits", "eval.data": "eval"}
"""Config keys that options set, and the names of these options."""


def parse_sets(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: expected KEY=VALUE, such as optim.lr=0.001")
        from manifests.support.yaml_core import parse_yaml  # noqa: PLC0415 - --help needs no YAML parser

        try:
            settings[key.strip()] = parse_yaml(text)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}") from error
    return settings


device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
shards_option = click.option("--shards", required=True, type=Location(), help="A patch set: its folder or URL.")
config_option = click.option(
    "--config", "config_name", required=True, type=NameOrPath(), help="A YAML file or a packaged config."
)
set_option = click.option(
    "--set", "settings", multiple=True, callback=parse_sets, help="Override a key: optim.lr=0.001."
)
eval_option = click.option("--eval", "eval_data", type=FILE, help="Labelled test data; sets eval.data.")
resume_option = click.option("--resume", is_flag=True, help="Go on with the run in --out, if it has begun.")
teacher_option = click.option("--teacher", type=FILE, help="The teacher's weight file; sets teacher.weights.")
logits_option = click.option(
    "--teacher-logits", type=FILE, help="The teacher's stored logits, see distill make-logits; sets teacher.logits."
)


def run_config(config_name: str, settings: dict[str, Any], **files: Path | None) -> "Config":
    """Return the config of a run with overrides; ``files`` are the arguments of ``with_files``."""
    from distill.config.schema import Config, parse_config  # noqa: PLC0415

    _, text = presets.read(presets.CONFIGS, config_name)
    return parse_config(text, config_name, with_files(settings, **files), Config)


def fetched(shards: Path | str, check: Callable[[], None]) -> Path:
    """Return the folder of a set; a remote set is downloaded after ``check`` has checked all other inputs."""
    if not isinstance(shards, Path):
        check()
    return local_folder(shards)


def with_files(
    settings: dict[str, Any],
    *,
    teacher: Path | None = None,
    logits: Path | None = None,
    eval_data: Path | None = None,
) -> dict[str, Any]:
    """Add the config keys that the file options set to ``settings``."""
    keys = {"teacher.weights": teacher, "teacher.logits": logits, "eval.data": eval_data}
    given = {key: value for key, value in keys.items() if value is not None}
    for key in given.keys() & settings.keys():
        raise click.UsageError(f"--set {key} and --{OPTIONS[key]} are both given; give one of them.")
    return settings | given


def parse_seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        seeds = tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("expected numbers with commas, such as 0,1,2") from error
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise click.BadParameter(f"{value!r}: expected different numbers from 0 up")
    return seeds


def require_one_seed(settings: dict[str, Any], seeds: tuple[int, ...] | None) -> None:
    """Raise UsageError if both ``--set train.seed`` and ``--seeds`` are given."""
    if seeds is not None and "train.seed" in settings:
        raise click.UsageError("--set train.seed and --seeds are both given; give one of them.")


seeds_option = click.option("--seeds", callback=parse_seeds, help="A run for each: 0,1,2; sets train.seed.")


def _parse_triple(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, float, float] | None:
    if value is None:
        return None
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("expected three numbers with commas, such as 0.485,0.456,0.406") from error
    try:
        return (check_mean if parameter.name == "mean" else check_std)((red, green, blue))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


arch_option = click.option("--arch", help="Network name [default: the weight file's].")
mean_option = click.option(
    "--mean", callback=_parse_triple, help="R,G,B of the input in [0, 1] [default: the file's]."
)
std_option = click.option("--std", callback=_parse_triple, help="R,G,B of the input in [0, 1] [default: the file's].")
