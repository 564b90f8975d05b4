"""Training runs: the flow of a run, the training loop, run directories, checkpoints and resuming."""
