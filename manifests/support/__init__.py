"""Code that both programs share besides the format: console, files, processes, validation of values."""
