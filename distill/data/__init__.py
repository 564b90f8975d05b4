"""Training data: decoded or streamed patch sets, labelled images, and the order and batches of a run."""
