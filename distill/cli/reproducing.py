"""The command ``reproduce``, which runs the experiments of a publication's table."""

import signal
from pathlib import Path
from typing import Any

import click

from distill.cli.options import FILE, parse_numbers, parse_settings
from distill.config import presets
from manifests.remote.cli_location import NameOrPath
from manifests.support.cli_options import allow_import_option
from manifests.support.console import FAILED, InterruptedProgram, printable, say
from manifests.support.counts import counted


def _parse_paths(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"{value!r}: expected NAME=PATH, such as cifar10=cifar-10-batches-bin/")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice; give it once")
        found[name] = FILE.convert(path, parameter, context).resolve()
    return found


def _parse_scale(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1000:  # true for nan too
        raise click.BadParameter(f"{value}: expected a number above 0 and at most 1000")
    return value


_PATHS: dict[str, Any] = {"multiple": True, "callback": _parse_paths}
_SETS: dict[str, Any] = {"multiple": True, "callback": parse_settings}
_SCALE: dict[str, Any] = {"type": float, "callback": _parse_scale}


@click.command()
@click.argument("table", metavar="TABLE", type=NameOrPath())
@click.option("--input", "inputs", **_PATHS, help="Data or a photo that the table needs: NAME=PATH.")
@click.option("--teacher", "teachers", **_PATHS, help="A weight file to use for a network: NETWORK=FILE.")
@click.option("--out", type=FILE, help="Folder of the table [default: tables/TABLE].")
@click.option("--only", multiple=True, help="Only rows of this run or network; * matches any letters.")
@click.option("--scale", **_SCALE, default=1.0, show_default=True, help="Factor of the length of students' runs.")
@click.option("--teacher-scale", **_SCALE, help="The same for runs from labels [default: --scale].")
@click.option("--seeds", callback=parse_numbers, default="0", show_default=True, help="Seeds of students: 0,1,2.")
@click.option("--variant", help="Use this variant of the table (named settings) for every student.")
@click.option("--set", "settings", **_SETS, help="Override a key of students' configs.")
@click.option("--teacher-set", "teacher_settings", **_SETS, help="Override a key of the configs of runs from labels.")
@click.option("--estimate", "only_estimate", is_flag=True, help="Print the estimated cost, and stop.")
@allow_import_option
@click.option("--device", default="auto", show_default=True, help="auto: every GPU, a row each; cpu; cuda:0,cuda:1.")
def reproduce(
    table: str, out: Path | None, only: tuple[str, ...], only_estimate: bool, device: str, **values: Any
) -> None:
    """Run the experiments of a publication's table.

    TABLE is a YAML file or a packaged table, see distill tables. Commands of patchgen and distill build sets, train
    teachers and distill students; each command is printed. The result page shows the published figures and ours. Run
    the same command again to continue: finished runs are skipped. A row that fails does not stop the other rows.

    Example: distill reproduce main --input cifar10=cifar-10-batches-bin/ --input photo=city.jpg --scale 0.01
    """
    # torch takes seconds to import, so it is imported after parsing: --help and a usage error appear at once.
    from distill.commands.reproduce import HTML_NAME, check_start, list_devices  # noqa: PLC0415
    from distill.commands.reproduce import reproduce as run_table  # noqa: PLC0415
    from distill.tables.costs import describe_cost, estimate_jobs  # noqa: PLC0415
    from distill.tables.options import TableOptions  # noqa: PLC0415
    from distill.tables.plan import make_plan  # noqa: PLC0415
    from distill.tables.schema import parse_table  # noqa: PLC0415
    from distill.training.cost_estimate import Cost  # noqa: PLC0415

    name, text = presets.read(presets.TABLES, table)
    out = out or Path("tables") / name
    parsed, devices = parse_table(text, table), list_devices(device)
    folder = Path(table).parent if Path(table).is_file() else Path()
    values["teacher_scale"] = values["teacher_scale"] or values["scale"]
    plan = make_plan(parsed, TableOptions(name=Path(table).name, folder=folder, **values), only)
    for missing, rows in plan.skipped.items():
        say(f"left out: {counted(rows, 'row')}, because {missing} is missing")
    check_start(plan, out)
    costs = estimate_jobs(plan, out, devices[0])
    for line in describe_cost(plan, costs, out, devices):
        (click.echo if only_estimate else say)(printable(line))
    if only_estimate:
        return
    previous = signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # a closed terminal stops the jobs too
    try:
        measured = {name: cost for name, cost in costs.items() if isinstance(cost, Cost)}
        lines, failed = run_table(plan, out, devices, measured)
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("stopped; run the same command again to continue") from stop
    finally:
        signal.signal(signal.SIGHUP, previous)
    for line in lines:
        click.echo(printable(line))
    length = "" if values["scale"] == 1 else f" (students' runs have {values['scale']:g} of their full length)"
    click.echo(f"table: {out / HTML_NAME}{length}")
    if failed:
        action = "correct the errors above, then run the same command again"
        click.echo(f"distill: {len(failed)} of {counted(len(plan.chosen), 'job')} failed; {action}", err=True)
        raise click.exceptions.Exit(FAILED)
