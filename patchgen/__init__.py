"""Build patch sets from a single image.

Python programs use ``build``, ``rebuild``, ``extend``, ``verify``, ``Patches``, ``load_recipe``, ``allow_import`` and
``PatchgenError`` (docs/python.md).

- ``cli``: define the command line.
- ``api``: functions on sets. ``patches``: compute patches without files. ``arguments``: check arguments.
- ``doctor``: check this machine. ``preview``: draw a contact sheet. ``export``: write files for other tools.
- ``pipeline``: build, resume, rebuild or pack a set, with local processes or Dask workers.
- ``recipe``: define and load recipes. ``recipes``: contain the packaged recipes.
- ``sources``: read and check photos, read images to pack, generate synthetic images.
- ``pixels``: compute exact pixels: draws, geometry, warp, color jitter, Albumentations, own functions, encoders.
- ``limits``: define the limits of a build. ``errors``: define ``PatchgenError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manifests.support.user_code import allow_import
    from patchgen.api import build, extend, rebuild, verify
    from patchgen.errors import PatchgenError
    from patchgen.patches import Patches
    from patchgen.recipe import load_recipe
else:
    _MODULES = {
        "Patches": "patchgen.patches",
        "PatchgenError": "patchgen.errors",
        "allow_import": "manifests.support.user_code",
        **dict.fromkeys(("build", "extend", "rebuild", "verify"), "patchgen.api"),
        "load_recipe": "patchgen.recipe",
    }

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used. An early import of OpenCV would slow down every --help."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


__all__ = ["Patches", "PatchgenError", "allow_import", "build", "extend", "load_recipe", "rebuild", "verify"]
