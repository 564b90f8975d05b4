"""Weight files: open a file, find the state dict, match the network's names, load it.

The modules are, in this order: ``files`` (and ``torch_files``), ``unwrap``, ``foreign_names``, ``load``.
"""
