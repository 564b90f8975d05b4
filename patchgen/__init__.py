"""Build patch sets from a single image.

- ``cli``: define the command line.
- ``doctor``: check this machine. ``preview``: draw a contact sheet. ``export``: write files for other tools.
- ``pipeline``: build, resume, rebuild or pack a set, with local processes or Dask workers.
- ``recipe``: define and load recipes. ``recipes``: contain the packaged recipes.
- ``sources``: read and check photos, read images to pack, generate synthetic images.
- ``pixels``: compute exact pixels: random draws, geometry, warp, color jitter, Albumentations steps, encoders.
- ``limits``: define the limits of a build. ``errors``: define ``PatchgenError``.
"""
