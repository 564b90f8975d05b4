"""Options that several commands share, each one decorator, and what they stand for: workers and destinations."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manifests.limits import IMAGE_FORMATS
from manifests.remote.cli_location import LocalPath, Location, location_name
from manifests.support.console import InterruptedProgram, counting, progress_bar
from manifests.support.numbers import Count
from patchgen.errors import PatchgenError, TakenError
from patchgen.limits import MAX_SHARD_PATCHES

if TYPE_CHECKING:
    from patchgen.pipeline.build import ShardExecutor
    from patchgen.pipeline.shard_output import LocalOutput

CARD_KEYS = {"license": "licence", "url": "url", "attribution": "attribution"}
"""Options that describe a source, and their keys in the manifest."""

F = TypeVar("F", bound=Callable[..., Any])


class Scheduler(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """A Dask cluster: the address of its scheduler, or ``local:N``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        local = re.fullmatch(r"local:([0-9]{1,4})", str(value))
        if (local and 1 <= int(local[1]) <= 1024) or re.fullmatch(r"(tcp|tls|ucx|wss?)://[^@]+", str(value)):
            return str(value)
        self.fail(f"{value!r} is no scheduler, expected tcp://host:8786 or local:4.", param, ctx)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """Numbers of shards: ``A-B``, both included, or a single number."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", str(value))
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not numbers:
            self.fail(f"{value!r} is no span of shards, expected one such as 0-15 or 7.", param, ctx)
        return numbers


def images(*, required: bool, help_text: str) -> Callable[[F], F]:
    """Return the option ``--image``, given once for each photo."""
    return click.option("--image", "images", required=required, multiple=True, type=LocalPath(), help=help_text)


def format_option(default: str) -> Callable[[F], F]:
    """Return the option ``--format``; ``default`` is a text for its help."""
    text = f"Image format [default: {default}]."
    return click.option("--format", "image_format", type=click.Choice(IMAGE_FORMATS), help=text)


def shard_size_option(noun: str) -> Callable[[F], F]:
    """Return the option ``--shard-size``; a shard consists of ``noun``."""
    text = f"{noun} a shard [default: by --size]."
    return click.option("--shard-size", type=Count(1, MAX_SHARD_PATCHES), help=text)


_SET_IMAGE = "The photo it was made from; several in the order of the manifest's sources."
set_image_option = images(required=True, help_text=_SET_IMAGE)
workers_option = click.option("--workers", type=Count(1, 1024), help="Processes [default: one a core].")
scheduler_option = click.option(
    "--scheduler", type=Scheduler(), help="Build on a Dask cluster: its tcp:// address, or local:N for N processes."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_out = Location(to_write=True, file_okay=False)
out_option = click.option("--out", required=True, type=_out, help="Folder of the set, or s3://bucket/set.")
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
def building(
    out: str | Path, workers: int | None, scheduler: str | None = None, build_id: str | None = None
) -> Iterator[tuple[Path, "ShardExecutor"]]:
    """Yield the folder to build in for ``--out``, and what builds shards: processes of this machine, or a cluster.

    If ``out`` is a URL, the set is sent there when the block ends without error; a cluster's workers send its tars.
    """
    try:
        with _destination(out, build_id) as (folder, output), _executor(workers, scheduler, output) as builders:
            yield folder, builders
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("interrupted; run the same command again to go on") from stop


@contextlib.contextmanager
def _executor(workers: int | None, scheduler: str | None, output: "LocalOutput | None") -> Iterator["ShardExecutor"]:
    if scheduler is None:
        yield cores(workers)
        return
    from patchgen.pipeline.dask_backend import connect  # noqa: PLC0415 - most builds need none
    from patchgen.pipeline.shard_output import LocalOutput  # noqa: PLC0415

    with connect(scheduler, output or LocalOutput()) as cluster:
        yield cluster


@contextlib.contextmanager
def _destination(out: str | Path, build_id: str | None) -> Iterator[tuple[Path, "LocalOutput | None"]]:
    """Yield the folder to build in, and where a cluster's tars go: None if into that folder."""
    if isinstance(out, Path):
        yield out, None
        return
    from manifests.remote.upload import stage_upload  # noqa: PLC0415 - most sets are local
    from patchgen.pipeline.shard_output import StoreOutput  # noqa: PLC0415

    with stage_upload(out, build_id) as upload:
        try:
            yield upload.folder, StoreOutput(upload=upload)
        except TakenError as error:
            raise PatchgenError(f"{location_name(out)}: its copy {error}") from error
        with progress_bar("sending (bytes)", upload.num_bytes) as update:
            upload.send(counting(update))
