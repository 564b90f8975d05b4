"""The format ``patchset/1``: its manifest, tables, tars, digests and canonical JSON."""
