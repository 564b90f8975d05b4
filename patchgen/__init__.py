"""Patch sets from a single image. A photo flows through these rooms into shards:

- ``source``: a file in, RGB pixels and their pyramid out.
- ``randomness``: a seed and a range of indices in, each patch's own draws out.
- ``geometry``: draws in, places in the photo out; a place in, a patch out.
- ``colour``: a patch and its parameters in, a patch out.
- ``transforms``: the same as Albumentations transforms, which is what a recipe names.
- ``encode``: a patch in, PNG, JPEG, WebP or PPM bytes out.
- ``write``: a range of indices in, a tar and its table out; ``shard`` says which are still to be written.
- ``recipe``: YAML in, the parameters of all of these out.
- ``plan``: what a build will write, and whether a folder may take it.
- ``build``: the wiring: processes, resume, manifest.
- ``cli``: the command line.

``exactmath`` serves ``geometry`` and ``colour``; ``pool`` runs ``write`` in several processes for ``build``.
"""
