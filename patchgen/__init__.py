"""Build patch sets from a single image.

- ``sources``: read photos, generate synthetic images, read images to pack.
- ``pixels``: draw where patches lie, warp them from image pyramids, jitter and encode them, with exact arithmetic.
- ``recipe``, ``recipes``: load the parameters of all of these from YAML; the packaged recipes.
- ``pipeline``: plan and run a build in processes or on Dask workers, resume, rebuild and pack.
- ``export``, ``preview``, ``doctor``: write files for other tools, contact sheets, check this machine.
- ``cli``: the command line. ``limits``, ``environment``, ``errors``: bounds, recorded versions, errors.
"""
