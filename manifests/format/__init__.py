"""Read and write the manifest, tables, tars, digests and canonical JSON of the format ``patchset/1``."""
