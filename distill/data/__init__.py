"""What networks see: patch sets (``cache``, ``patches``, ``tars``) and labelled images (``labelled``, ``cifar``).

``order`` says when, ``view`` with which augmentation, ``config`` is their group of a config.
"""
