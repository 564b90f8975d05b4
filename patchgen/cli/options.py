"""Define the options that several commands share. Open the folder and start the workers of a build."""

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
    from patchgen.pipeline.dask_backend import LocalOutput

CARD_KEYS = {"license": "licence", "url": "url", "attribution": "attribution"}
"""The options that describe a photo, each with the key of its text in the manifest."""

Paths = tuple[Path, ...]
F = TypeVar("F", bound=Callable[..., Any])


def _check_scheduler(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    local = re.fullmatch(r"local:([0-9]{1,4})", value)
    if (local and 1 <= int(local[1]) <= 1024) or re.fullmatch(r"(tcp|tls|ucx|wss?)://[^@]+", value):
        return value
    raise click.BadParameter(f"{value!r} is not an address of a scheduler; give tcp://HOST:PORT or local:N.")


def parse_span(ctx: click.Context, param: click.Parameter, value: str | None) -> range | None:
    """Parse the value of ``--shards``: ``A-B`` or one number. Return the shard numbers A to B, including B."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", value)
    numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
    if not numbers:
        raise click.BadParameter(f"{value!r} is not a range of shards; give for example 0-15 or 7.")
    return numbers


def images(*, required: bool, help_text: str) -> Callable[[F], F]:
    """Return the option ``--image``, which may be given several times."""
    return click.option("--image", "images", required=required, multiple=True, type=LocalPath(), help=help_text)


def format_option(default: str) -> Callable[[F], F]:
    """Return the option ``--format``. ``default`` describes the default format in the help text."""
    text = f"Image format [default: {default}]."
    return click.option("--format", "image_format", type=click.Choice(IMAGE_FORMATS), help=text)


def shard_size_option(noun: str) -> Callable[[F], F]:
    """Return the option ``--shard-size``. ``noun`` is the first word of the help text: "Patches" or "Images"."""
    text = f"{noun} in a shard [default: depends on --size]."
    return click.option("--shard-size", type=Count(1, MAX_SHARD_PATCHES), help=text)


_SET_IMAGE = "The photo of the set. Give several photos in the order of the manifest's sources."
set_image_option = images(required=True, help_text=_SET_IMAGE)
workers_option = click.option("--workers", type=Count(1, 1024), help="Number of processes [default: one per core].")
_SCHEDULER = "Build with Dask: the tcp:// address of a scheduler, or local:N for N local processes."
scheduler_option = click.option("--scheduler", metavar="ADDRESS", callback=_check_scheduler, help=_SCHEDULER)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_out = Location(to_write=True, file_okay=False)
out_option = click.option("--out", required=True, type=_out, help="Folder of the set, or s3://bucket/set.")
shards_argument = click.argument("shards", type=Location())


def cores(workers: int | None) -> int:
    """Return ``workers``. If ``workers`` is None, return the number of cores that this process may use."""
    if workers is not None:
        return workers
    from manifests.support.processes import usable_cores  # noqa: PLC0415 - it loads multiprocessing

    return usable_cores()


def preload_workers(workers: int | None, scheduler: str | None = None) -> None:
    """Start a process that imports libraries and later forks the workers. Do nothing for Dask or for one worker."""
    if scheduler is None and cores(workers) > 1:
        from manifests.support.processes import start_server  # noqa: PLC0415 - it loads multiprocessing

        start_server("patchgen.pipeline.shard_writer")


@contextlib.contextmanager
def building(
    out: str | Path, workers: int | None, scheduler: str | None = None, build_id: str | None = None
) -> Iterator[tuple[Path, "ShardExecutor"]]:
    """Yield the folder of a build, and the workers: a number of local processes, or the executor of a Dask cluster.

    If ``out`` is a URL, upload the set when the ``with`` block ends without error. Dask workers upload tars earlier.
    """
    try:
        with _destination(out, build_id) as (folder, output):
            if scheduler is None:
                yield folder, cores(workers)
                return
            from patchgen.pipeline.dask_backend import LocalOutput, connect  # noqa: PLC0415

            with connect(scheduler, output or LocalOutput()) as cluster:
                yield folder, cluster
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("interrupted; run the same command again to continue") from stop


@contextlib.contextmanager
def _destination(out: str | Path, build_id: str | None) -> Iterator[tuple[Path, "LocalOutput | None"]]:
    """Yield the folder of a build, and the output to which Dask workers upload tars, or None if ``out`` is a path."""
    if isinstance(out, Path):
        yield out, None
        return
    from manifests.remote.upload import stage_upload  # noqa: PLC0415 - most sets are local
    from patchgen.pipeline.store_output import StoreOutput  # noqa: PLC0415

    with stage_upload(out, build_id) as upload:
        try:
            yield upload.folder, StoreOutput(upload=upload)
        except TakenError as error:
            reason = str(error).partition(", or run 'patchgen extend'")[0]  # which needs a folder
            raise PatchgenError(f"{location_name(out)}: the local copy of the set: {reason}") from error
        with progress_bar("uploading (bytes)", upload.num_bytes) as update:
            upload.send(counting(update))
