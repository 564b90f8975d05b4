"""What networks see: ``patches`` of a set (``cache``, ``stream``, ``tars``), or ``labelled`` images.

``order`` says when, ``view`` with which augmentation, ``config`` is their group of a config.
"""
