"""Hostile sets and files: each is refused with one line before anything is decoded or trained on.

A case (``case``) replaces one of the good files that ``world`` makes, and names the commands that a user would then
run. ``corpus`` lists the cases, a module a kind of file: ``manifests``, ``names`` (and texts), ``tars``, ``tables``,
``images``, ``weights`` (with ``archives`` and ``pickles``), ``checkpoints``, ``labels``, ``configs`` (and recipes),
``inputs`` (images to pack or to evaluate on) and ``cifar``. ``forge`` signs a set as its publisher can: every digest
fits, so that no check can rely on digests.

``tests/test_hostile.py`` runs them in one process, each with one of its commands. ``scripts/stress/hostile.py``
runs all of their commands, each in its own process, and measures memory and time.
"""
