"""Where a command writes its set: a local folder, or one that is sent to a URL when the set is whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from manifests.locations import location_name
from manifests.terminal import counting, progress_bar
from patchgen.errors import PatchgenError


@contextlib.contextmanager
def destination(out: str | Path) -> Iterator[Path]:
    """The folder to build in for ``--out``; when the block ends without error, what was built is sent there.

    Raises:
        PatchSetError: as ``publish.staged`` and its ``send``.
    """
    if isinstance(out, Path):
        yield out
        return
    from manifests.publish import staged  # noqa: PLC0415 - most sets are local

    with staged(out) as publication:
        try:
            yield publication.folder
        except PatchgenError as error:  # what the folder in the cache knows is what lies there
            if not publication.known:
                raise
            told = str(error).replace(f"{publication.folder}: holds", f"{location_name(out)}: holds")
            raise PatchgenError(told) from error
        with progress_bar("sending (bytes)", publication.bytes) as update:
            publication.send(counting(update))
