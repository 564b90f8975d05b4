"""Where a command writes its set: a local folder, or one that is sent to a URL when the set is whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from manifests.locations import location_name
from manifests.terminal import counting, progress_bar
from patchgen.errors import PatchgenError, TakenError


@contextlib.contextmanager
def destination(out: str | Path, set_id: str | None = None) -> Iterator[Path]:
    """The folder to build in for ``--out``; when the block ends without error, what was built is sent there.

    ``set_id`` is the set's that will be built, if it is known.

    Raises:
        PatchSetError: as ``publish.staged`` and its ``send``.
        PatchgenError: another build lies there, or was begun for it.
    """
    if isinstance(out, Path):
        yield out
        return
    from manifests.publish import staged  # noqa: PLC0415 - most sets are local

    with staged(out, set_id) as publication:
        try:
            yield publication.folder
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
