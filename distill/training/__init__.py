"""Training runs: the training loop, run directories, checkpoints, resuming, and means over seeds."""
