"""Limits of a build, for numbers from the command line, a manifest or an earlier build."""

MIN_SIZE, MAX_SIZE = 8, 1024  # size of a patch in pixels
MAX_SIDE = 32_766  # pixels of a side of a photo: OpenCV's warp addresses pixels with 16-bit numbers
MAX_SHARD_PATCHES = 100_000  # their parameters and digests take about 1 KB of memory each while a shard is built
