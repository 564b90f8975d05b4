"""Build patch sets from a single image.

- ``cli``: the command line.
- ``doctor``, ``preview``, ``export``: check this machine; draw contact sheets; write files for other tools.
- ``pipeline``: a build: plan, output directory, processes or Dask workers, shard writer, resume, rebuild, pack.
- ``recipe``, ``recipes``: the schema of recipes, and the packaged ones.
- ``sources``: photos and their checks, synthetic images, packed images.
- ``pixels``: exact arithmetic: draws, geometry, warp, color jitter, Albumentations steps, encoders.
- ``limits``, ``errors``: the limits of a build, and ``PatchgenError``.
"""
