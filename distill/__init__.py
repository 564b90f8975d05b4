"""Train students on patch sets against a frozen teacher.

- ``cli``: parse, call, print.
- ``commands``: one module for each command.
- ``tables``: a publication's table: rows, commands, page.
- ``report``: run directories as one HTML page.
- ``training``: training loop, run directory, seeds, checkpoints, resume.
- ``config``, ``configs``: the schema of configs, and the packaged ones.
- ``evaluation``: top-1, agreement with the teacher, images of classes.
- ``targets``: losses, teacher, stored logits.
- ``optim``: optimizers and schedules.
- ``data``: decoded or streamed shards, labelled images, sampler, batches.
- ``augment``: augmentation on the device.
- ``runtime``: device, precision, compilation, ``torchrun``, randomness, threads.
- ``weights``, ``models``: weight files, ours and foreign; networks.
- ``errors``: ``DistillError``.
"""

from distill.runtime.openmp import limit_spinning

limit_spinning()
