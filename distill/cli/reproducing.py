"""The command ``reproduce``, which runs a publication's table again."""

import signal
from pathlib import Path
from typing import Any

import click

from distill.cli.options import FILE, parse_seeds, parse_sets
from distill.config import presets
from manifests.remote.cli_location import NameOrPath
from manifests.support.console import FAILED, InterruptedProgram, printable, say
from manifests.support.counts import counted


def _parse_named(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"{value!r}: expected NAME=PATH, such as cifar10=cifar-10-batches-bin/")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice")
        found[name] = FILE.convert(path, parameter, context).resolve()
    return found


def _parse_scale(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1000:  # which is no number either, if it is nan
        raise click.BadParameter(f"{value}: expected a number above 0, to 1000")
    return value


_PATHS: dict[str, Any] = {"multiple": True, "callback": _parse_named}
_SETS: dict[str, Any] = {"multiple": True, "callback": parse_sets}
_SCALE: dict[str, Any] = {"type": float, "callback": _parse_scale}


@click.command()
@click.argument("table", metavar="TABLE", type=NameOrPath())
@click.option("--input", "inputs", **_PATHS, help="What the table needs: NAME=PATH.")
@click.option("--teacher", "teachers", **_PATHS, help="A weight file: NETWORK=FILE.")
@click.option("--out", type=FILE, help="Folder of the table [default: tables/TABLE].")
@click.option("--only", multiple=True, help="Rows of this run or network alone; * stands for any letters.")
@click.option("--scale", **_SCALE, default=1.0, show_default=True, help="Length of students' runs, × the table's.")
@click.option("--teacher-scale", **_SCALE, help="Of runs from labels [default: as --scale].")
@click.option("--seeds", callback=parse_seeds, default="0", show_default=True, help="Of students: 0,1,2.")
@click.option("--variant", help="Settings of this name in the table, for every student.")
@click.option("--set", "settings", **_SETS, help="Override a key of students' configs.")
@click.option("--teacher-set", "teacher_settings", **_SETS, help="Likewise of runs from labels.")
@click.option("--estimate", "only_estimate", is_flag=True, help="Say what it would cost, and stop.")
@click.option("--device", default="auto", show_default=True, help="auto: every GPU, a row each; cpu; cuda:0,cuda:1.")
def reproduce(
    table: str, out: Path | None, only: tuple[str, ...], only_estimate: bool, device: str, **values: Any
) -> None:
    """Run the experiments of a publication's table, and compare its figures with ours.

    TABLE is a YAML file or a packaged table, see distill tables. Sets are built, teachers trained, students distilled
    by the ordinary commands, which are printed. Run it again to go on: what is done is skipped. A row that fails does
    not stop the others.

    Example: distill reproduce main --input cifar10=cifar-10-batches-bin/ --input photo=city.jpg --scale 0.01
    """
    # torch takes seconds to import, so it comes after parsing: --help and a typing error answer at once.
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
        raise InterruptedProgram("stopped; run the same command again to go on") from stop
    finally:
        signal.signal(signal.SIGHUP, previous)
    for line in lines:
        click.echo(printable(line))
    click.echo(f"table: {out / HTML_NAME}")
    if failed:
        click.echo(f"distill: {len(failed)} of {counted(len(plan.chosen), 'job')} failed", err=True)
        raise click.exceptions.Exit(FAILED)
