"""Make patch sets of a single image.

- ``cli``: parse, call, print.
- ``doctor``, ``preview``, ``export``: check this machine; draw contact sheets; write files for other tools.
- ``pipeline``: a build: plan, output directory, processes or Dask workers, shard writer, resume, rebuild, pack.
- ``recipe``, ``recipes``: the schema of recipes, and the packaged ones.
- ``sources``: photos and their checks, synthetic images, packed images.
- ``pixels``: exact arithmetic: draws, geometry, warp, color jitter, Albumentations steps, encoders.
- ``limits``, ``environment``, ``errors``: sizes of builds, versions of packages, and ``PatchgenError``.
"""
