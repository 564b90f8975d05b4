"""Read image data sets that other programs wrote: find the images and labels of a split (train or test).

``image_data`` finds the images in folders (``listing``), tars or CIFAR's files (``cifar``).
``image_files`` reads one image. ``patchgen pack`` and ``distill eval`` call these modules.
"""
