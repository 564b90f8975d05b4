"""How large a build may be, wherever its numbers come from: the command line, a manifest, a marker."""

MIN_SIZE, MAX_SIZE = 8, 1024
"""Pixels a side of a patch."""

MAX_SIDE = 32_766
"""Pixels a side of a photo, and of an image that OpenCV's warp reads: it addresses them with 16-bit numbers."""

MAX_SHARD_PATCHES = 100_000
"""A shard's parameters and digests are held in memory while it is built: about 1 KB a patch."""
