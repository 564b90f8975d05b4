"""Options that several commands share, each one decorator, so that one name means one thing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manifests.locations import LocalPath, Location
from manifests.processes import usable_cores
from manifests.terminal import InterruptedProgram

if TYPE_CHECKING:
    from manifests import Manifest

F = TypeVar("F", bound=Callable[..., Any])


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


workers_option = click.option("--workers", type=click.IntRange(1, 1024), help="Processes [default: one a core].")
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
    return usable_cores() if workers is None else workers


def counted_shards(manifest: "Manifest") -> str:
    """How many shards, in words."""
    return "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards)} shards"


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Tell the user who interrupts a build how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("interrupted; run the same command again to go on") from stop
