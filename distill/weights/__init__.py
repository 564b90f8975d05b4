"""Read weight files: ``files`` and ``torch_files`` open a file, ``unwrap`` finds the state dict of the network,
``foreign_names`` renames its parameters, and ``load`` copies the parameters into a network.
"""
