"""Console, files, processes and validation of values: what both programs share besides the format."""
