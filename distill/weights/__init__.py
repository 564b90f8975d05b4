"""Read weight files, find the state dict of the network, rename its parameters, and copy them into a network."""
