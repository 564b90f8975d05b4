"""Patch sets from a single image. A photo flows through these rooms into shards:

- ``source``: a file in, RGB pixels out; ``synthetic`` makes pixels of numbers alone.
- ``pyramid``: pixels in, the photo at many resolutions out.
- ``randomness``: a seed and a range of indices in, each patch's own draws out.
- ``geometry``: draws in, places in the photo out.
- ``warp``: places and pyramids in, patches out.
- ``colour``: patches and their parameters in, patches out.
- ``named``, ``transforms``: Albumentations transforms, ours as one and anybody's as a step of a recipe.
- ``patches``: all of these together: a range of indices in, patches and their parameters out.
- ``encode``: a patch in, PNG, JPEG, WebP or PPM bytes out.
- ``write``: a range of indices in, a tar and its table out; ``shard`` says which are still to be written.
- ``recipe``: YAML in, the parameters of all of these out; ``packaged``: the recipes that come with the package.
- ``plan``: what a build will write; ``folder``: whether a folder may take it.
- ``shelf``: where finished tars go, a folder; ``stored``: or a store, to which ``cluster``'s workers send them.
- ``build``: the wiring: processes, resume, manifest. ``rebuild`` and ``doctor`` build again what is known.
- ``preview``: a set in, a picture of it out.
- ``cli``: the command line.

``exactmath`` serves ``geometry`` and ``colour``; ``pool`` runs ``write`` in several processes for ``build``;
``limits`` says how large a build may be;
``environment`` says what a set was made with.
"""
