"""Define the limits of a build, for new sets and for sets that are built again from a manifest."""

MIN_SIZE, MAX_SIZE = 8, 1024  # size of a patch in pixels
MAX_SIDE = 32_766  # pixels of a photo's side; OpenCV's warp addresses pixels with 16-bit numbers
MAX_SHARD_PATCHES = 100_000  # building a shard needs about 1 KB of memory for each patch
