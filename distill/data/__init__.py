"""What networks see: patch sets (``patches``, ``tars``), labelled images (``labelled``, ``cifar``), in ``order``."""
