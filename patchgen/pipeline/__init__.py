"""Build patch sets: plan, output folder, worker processes or a Dask cluster, shards, resume, rebuild, pack."""
