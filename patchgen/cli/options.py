"""Options that several commands share, each one decorator, and what they stand for: workers and destinations."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manifests.remote.cli_location import LocalPath, Location, location_name
from manifests.support.console import InterruptedProgram, counting, progress_bar
from manifests.support.numbers import Count
from patchgen.errors import PatchgenError, TakenError

if TYPE_CHECKING:
    from patchgen.pipeline.build import ShardExecutor
    from patchgen.pipeline.shard_output import ShardOutput

CARD_KEYS = {"license": "licence", "url": "url", "attribution": "attribution"}
"""Options that describe a source, and their keys in the manifest."""

F = TypeVar("F", bound=Callable[..., Any])


class Scheduler(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """A Dask cluster: the address of its scheduler, or ``local:N``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        kind, _, rest = str(value).partition(":")
        if kind == "local" and rest.isascii() and rest.isdecimal() and 1 <= int(rest) <= 1024:
            return str(value)
        if kind in ("tcp", "tls", "ucx", "ws", "wss") and rest.startswith("//") and len(rest) > 2 and "@" not in rest:
            return str(value)
        self.fail(f"{value!r} is no scheduler, expected tcp://host:8786 or local:4.", param, ctx)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """Numbers of shards: ``A-B``, both included, or a single number."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, dash, last = str(value).partition("-")
        if not first.isdecimal() or not (last.isdecimal() if dash else not last) or int(last or first) < int(first):
            self.fail(f"{value!r} is no span of shards, expected one such as 0-15 or 7.", param, ctx)
        return range(int(first), int(last or first) + 1)


def images(*, required: bool, help_text: str) -> Callable[[F], F]:
    """Return the option ``--image``, given once for each photo."""
    return click.option("--image", "images", required=required, multiple=True, type=LocalPath(), help=help_text)


workers_option = click.option("--workers", type=Count(1, 1024), help="Processes [default: one a core].")
scheduler_option = click.option(
    "--scheduler", type=Scheduler(), help="Build on a Dask cluster: its tcp:// address, or local:N for N processes."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
out_option = click.option(
    "--out",
    required=True,
    type=Location(to_write=True, file_okay=False),
    help="Folder of the set, or s3://bucket/set.",
)
shards_argument = click.argument("shards", type=Location())


def cores(workers: int | None) -> int:
    """Return ``workers``, or the number of cores that this process may use."""
    if workers is not None:
        return workers
    from manifests.support.processes import usable_cores  # noqa: PLC0415 - it loads multiprocessing

    return usable_cores()


def preload_workers(workers: int | None, scheduler: str | None = None) -> None:
    """Start the server that worker processes come from, if there will be several, beside this process's imports."""
    if scheduler is None and cores(workers) > 1:
        from manifests.support.processes import start_server  # noqa: PLC0415 - it loads multiprocessing

        start_server("patchgen.pipeline.shard_writer")


@contextlib.contextmanager
def executor(
    workers: int | None, scheduler: str | None, output: "ShardOutput | None" = None
) -> Iterator["ShardExecutor"]:
    """Yield what builds shards: processes of this machine, or a cluster, which writes them to ``output``."""
    if scheduler is None:
        yield cores(workers)
        return
    from patchgen.pipeline.dask_backend import connect  # noqa: PLC0415 - most builds need none
    from patchgen.pipeline.shard_output import LocalOutput  # noqa: PLC0415

    with connect(scheduler, output or LocalOutput()) as cluster:
        yield cluster


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A folder to build in, and where a cluster's tars go: None if into that folder."""

    folder: Path
    output: "ShardOutput | None" = None


@contextlib.contextmanager
def destination(out: str | Path, build_id: str | None = None) -> Iterator[Destination]:
    """Yield where to build for ``--out``. If that is a URL, the set is sent there when the block ends without error.

    Raises:
        PatchSetError: as ``stage_upload`` and ``Upload.send``.
        PatchgenError: the destination holds another build, or an interrupted one for it is in the cache.
    """
    if isinstance(out, Path):
        yield Destination(folder=out)
        return
    from manifests.remote.upload import stage_upload  # noqa: PLC0415 - most sets are local
    from patchgen.pipeline.shard_output import StoreOutput  # noqa: PLC0415

    with stage_upload(out, build_id) as upload:
        try:
            yield Destination(folder=upload.folder, output=StoreOutput(upload=upload))
        except TakenError as error:
            text = f"{error.what}; {error.advice}"
            if not upload.is_fresh:
                text = f"an interrupted build for it lies in {upload.folder}, which {error.what}; finish it with its "
                text += "own command, or remove that folder"
            elif error.shorter:
                text = f"{error.what}; build it to another --out, its first patches are the same"
            raise PatchgenError(f"{location_name(out)}: {text}") from error
        with progress_bar("sending (bytes)", upload.num_bytes) as update:
            upload.send(counting(update))


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Tell a user who interrupts a build how to resume it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("interrupted; run the same command again to go on") from stop
