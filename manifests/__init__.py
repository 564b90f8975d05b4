"""The patch-set format ``patchset/1``: the only bridge between ``patchgen`` and ``distill``.

Rooms, and what flows through them:

- ``errors``: ``PatchSetError``, the one error.
- ``canonical``: a JSON value in, its canonical bytes out; strict parsing the other way.
- ``digest``: pixels, encoded bytes, files and manifests in, SHA-256 out.
- ``files``: bytes in, whole files out, or none.
- ``tar``: names and sizes in, canonical USTAR headers out.
- ``rows``: the Parquet file beside each shard; ``pages`` and ``thrift`` bound what it claims before Arrow reads it.
- ``schema``: the manifest, parsed once into frozen types; ``faults`` says in one line what is wrong with one.
- ``limits``: bounds and names that the command line states.
- ``patchset``: a folder in, a set out; ``sums``: its ``SHA256SUMS``.
- ``card``, ``croissant``, ``indexes``, ``bag``: a manifest in, files for other tools out; ``finish`` writes them.
- ``verify``, ``verify_shard``: a folder in, everything that is wrong with it out.
- ``diff``: two sets in, what they have in common out.
- ``reader``, ``images``: a set and indices in, pixels out; ``headers``: what an encoded image declares.
- ``remote.store``: a URL in, bytes of its files out; ``download``: those bytes in, a verified file out.
- ``remote.fetch``, ``upload``: a set at a URL in, a folder out, and the other way; ``transfers`` runs them.
- ``remote.cli_location``: a path or URL from the command line in, a folder out.
- ``terminal``, ``processes``: how both programs report errors and progress, and start workers.

``FORMAT.md`` beside this file specifies the format for other languages, ``READING.md`` shows how sets are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manifests.errors import PatchSetError
    from manifests.format.schema import Manifest, Shard, Source
    from manifests.patchset import PatchSet, verify_shards
    from manifests.remote.fetch import open_patchset
else:
    _MODULES = {
        "errors": ["PatchSetError"],
        "patchset": ["PatchSet", "verify_shards"],
        "remote.fetch": ["open_patchset"],
        "format.schema": ["Manifest", "Shard", "Source"],
    }

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: NumPy, PyArrow and pydantic would slow down every --help."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"manifests.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Manifest", "PatchSet", "PatchSetError", "Shard", "Source", "open_patchset", "verify_shards"]
