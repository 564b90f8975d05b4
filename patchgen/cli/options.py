"""Options that several commands share, each one decorator, so that one name means one thing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manifests.remote.cli_location import LocalPath, Location
from manifests.support.console import InterruptedProgram
from manifests.support.counts import counted
from manifests.support.numbers import Count

if TYPE_CHECKING:
    from manifests import Manifest
    from patchgen.pipeline.shard_store import Crew, Shelf

F = TypeVar("F", bound=Callable[..., Any])


class Scheduler(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """Where a Dask cluster is: an address, or ``local:N``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, if it is one of these."""
        kind, _, rest = str(value).partition(":")
        if kind == "local" and rest.isascii() and rest.isdecimal() and 1 <= int(rest) <= 1024:
            return str(value)
        if kind in ("tcp", "tls", "ucx", "ws", "wss") and rest.startswith("//") and len(rest) > 2 and "@" not in rest:
            return str(value)
        self.fail(f"{value!r} is no scheduler, expected tcp://host:8786 or local:4.", param, ctx)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """Numbers of shards: ``A-B`` with both, or one."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        """A range."""
        if isinstance(value, range):
            return value
        first, dash, last = str(value).partition("-")
        if not first.isdecimal() or not (last.isdecimal() if dash else not last) or int(last or first) < int(first):
            self.fail(f"{value!r} is no span of shards, expected one such as 0-15 or 7.", param, ctx)
        return range(int(first), int(last or first) + 1)


def images(*, required: bool, help_text: str) -> Callable[[F], F]:
    """``--image``, once for each photo."""
    return click.option(
        "--image",
        "images",
        required=required,
        multiple=True,
        type=LocalPath(),
        help=help_text,
    )


workers_option = click.option("--workers", type=Count(1, 1024), help="Processes [default: one a core].")
scheduler_option = click.option(
    "--scheduler", type=Scheduler(), help="Build on a Dask cluster: its tcp:// address, or local:N for N processes."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
out_folder = click.option(
    "--out",
    required=True,
    type=Location(to_write=True, file_okay=False),
    help="Folder of the set, or s3://bucket/set.",
)
shards_argument = click.argument("shards", type=Location())


def cores(workers: int | None) -> int:
    """``workers``, or one for each core that this process may use."""
    if workers is not None:
        return workers
    from manifests.support.processes import usable_cores  # noqa: PLC0415 - it loads multiprocessing

    return usable_cores()


def counted_shards(manifest: "Manifest") -> str:
    """How many shards, in words."""
    return counted(len(manifest.shards), "shard")


@contextlib.contextmanager
def crew(workers: int | None, scheduler: str | None, shelf: "Shelf | None" = None) -> Iterator["int | Crew"]:
    """Who builds: processes of this machine, or a cluster's, which put tars on ``shelf``, else into the folder."""
    if scheduler is None:
        yield cores(workers)
        return
    from patchgen.pipeline.dask_backend import cluster  # noqa: PLC0415 - most builds need none
    from patchgen.pipeline.shard_store import FolderShelf  # noqa: PLC0415

    with cluster(scheduler, shelf or FolderShelf()) as found:
        yield found


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Tell the user who interrupts a build how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("interrupted; run the same command again to go on") from stop
