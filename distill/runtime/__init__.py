"""Device, precision, compilation, randomness, threads and distributed processes."""
