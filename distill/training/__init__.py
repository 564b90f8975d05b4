"""The training loop, its run directory, checkpoints and resume."""
