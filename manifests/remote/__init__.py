"""Read and write patch sets at URLs: download a set into the cache and verify it, or upload a set."""
