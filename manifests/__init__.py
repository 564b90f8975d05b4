"""The patch-set format ``patchset/1``: the only code that ``patchgen`` and ``distill`` share.

- ``format``: manifest, tables, tars, digests, canonical JSON. ``FORMAT.md`` specifies it for other languages.
- ``patchset``, ``reader``, ``crop_outlines``: open a set, read patches, locate them in their photos.
- ``verify``, ``verify_shard``, ``diff``: find everything wrong with a set; compare two sets.
- ``export``: write files for other tools, and finish a set.
- ``remote``: download sets from URLs and upload them.
- ``foreign``: read images of other data sets. ``untrusted``: bound files before a library decodes them.
- ``support``: console, files, processes, validation.
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
        "PatchSetError": "errors",
        **dict.fromkeys(("PatchSet", "verify_shards"), "patchset"),
        "open_patchset": "remote.fetch",
        **dict.fromkeys(("Manifest", "Shard", "Source"), "format.schema"),
    }

    def __getattr__(name: str) -> Any:
        """Import a public name on first use: NumPy, PyArrow and pydantic would slow down every --help."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"manifests.{_MODULES[name]}"), name)


__all__ = ["Manifest", "PatchSet", "PatchSetError", "Shard", "Source", "open_patchset", "verify_shards"]
