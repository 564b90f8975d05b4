"""Read weight files, find the state dict of the network, rename the parameters, and copy them into a network."""
