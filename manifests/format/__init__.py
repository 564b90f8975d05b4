"""Read and write the parts of the format ``patchset/1``: manifest, tables, tars, digests and canonical JSON."""
