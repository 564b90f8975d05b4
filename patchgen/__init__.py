"""Build patch sets from a single image.

Python programs use ``build``, ``Patches``, ``load_recipe``, ``allow_import`` and ``PatchgenError`` (docs/python.md).

- ``cli``: the command line.
- ``api``, ``patches``: build a set from Python; compute single patches without files.
- ``doctor``, ``preview``, ``export``: check this machine; draw contact sheets; write files for other tools.
- ``pipeline``: a build: plan, output directory, processes or Dask workers, shard writer, resume, rebuild, pack.
- ``recipe``, ``recipes``: the schema of recipes, and the packaged ones.
- ``sources``: photos and their checks, synthetic images, packed images.
- ``pixels``: exact arithmetic: draws, geometry, warp, color jitter, Albumentations steps, users' functions, encoders.
- ``limits``, ``errors``: the limits of a build, and ``PatchgenError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manifests.support.user_code import allow_import
    from patchgen.api import build
    from patchgen.errors import PatchgenError
    from patchgen.patches import Patches
    from patchgen.recipe import load_recipe
else:
    _MODULES = {
        "Patches": "patchgen.patches",
        "PatchgenError": "patchgen.errors",
        "allow_import": "manifests.support.user_code",
        "build": "patchgen.api",
        "load_recipe": "patchgen.recipe",
    }

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used. An early import of OpenCV would slow down every --help."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


__all__ = ["Patches", "PatchgenError", "allow_import", "build", "load_recipe"]
