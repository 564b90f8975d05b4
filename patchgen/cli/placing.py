"""Where a command writes its set: a local folder, or one that is sent to a URL when the set is whole."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.remote.cli_location import location_name
from manifests.support.console import counting, progress_bar
from patchgen.errors import PatchgenError, TakenError

if TYPE_CHECKING:
    from patchgen.pipeline.shard_store import Shelf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Destination:
    """A folder to build in, and where tars go that are built elsewhere: None if into that folder, too."""

    folder: Path
    shelf: "Shelf | None" = None


@contextlib.contextmanager
def destination(out: str | Path, *, set_id: str | None = None, build_id: str | None = None) -> Iterator[Destination]:
    """Where to build for ``--out``; when the block ends without error, what was built is sent there.

    ``set_id`` is the set's that will be built, ``build_id`` its plan's; as far as they are known.

    Raises:
        PatchSetError: as ``publish.staged`` and its ``send``.
        PatchgenError: another build lies there, or was begun for it.
    """
    if isinstance(out, Path):
        yield Destination(folder=out)
        return
    from manifests.remote.marker import Marker  # noqa: PLC0415 - most sets are local
    from manifests.remote.upload import staged  # noqa: PLC0415
    from patchgen.pipeline.remote_store import StoreShelf  # noqa: PLC0415

    with staged(out, Marker(set_id=set_id, build=build_id)) as publication:
        try:
            yield Destination(folder=publication.folder, shelf=StoreShelf(publication=publication))
        except TakenError as error:
            folder = None if publication.known else publication.folder
            raise PatchgenError(_retold(error, location_name(out), folder)) from error
        with progress_bar("sending (bytes)", publication.bytes) as update:
            publication.send(counting(update))


def _retold(error: TakenError, url: str, begun: Path | None) -> str:
    """An error in words for a URL: of what lies there, or of what this machine has ``begun`` for it, in a folder."""
    if begun is not None:
        return (
            f"{url}: an interrupted build for it lies in {begun}, which {error.what}; finish it with its own "
            "command, or remove that folder"
        )
    if error.shorter:
        return f"{url}: {error.what}; build it to another --out, its first patches are the same"
    return f"{url}: {error.what}; {error.advice}"
