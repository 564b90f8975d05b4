"""Other people's image data: which files are read, of which split, with which labels, and how they are decoded.

``image_data`` finds all images of a split, with labels or without: by the names of ``splits``, in a folder
(``listing``), in tars (``tar_samples``, ``tar_members``) or in CIFAR's files (``cifar``, ``pickles``).
``image_files`` reads one of them, and ``decode`` turns it into pixels.
Both programs read data through these modules, so that ``patchgen pack`` and ``distill eval`` see the same images.
"""
