"""Code that ``patchgen`` and ``distill`` share: console, files, processes, validation of values."""
