"""Read image data sets of others: which files, of which split, with which labels.

``image_data`` finds the images of a split in folders (``listing``, ``splits``), tars (``tar_samples``,
``tar_members``) or CIFAR's files (``cifar``); ``image_files`` reads one image. Both programs use these
modules, so that ``patchgen pack`` and ``distill eval`` read the same images.
"""
