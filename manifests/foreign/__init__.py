"""Read image data sets of others: find the images and labels of a split.

``image_data`` finds the images in folders (``listing``), tars or CIFAR's files (``cifar``).
``image_files`` reads one image. ``patchgen pack`` and ``distill eval`` both use these modules, so they read the same
images.
"""
