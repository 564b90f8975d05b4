"""The patch-set format ``patchset/1``, which ``patchgen`` writes and ``distill`` reads.

``FORMAT.md`` specifies the format for other languages. ``READING.md`` shows how to read a set.
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
        """Import a public name when it is first used. An early import of PyArrow would slow down every --help."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"manifests.{_MODULES[name]}"), name)


__all__ = ["Manifest", "PatchSet", "PatchSetError", "Shard", "Source", "open_patchset", "verify_shards"]
