"""The format ``patchset/1``: manifest, tables, tars, digests and canonical JSON."""
