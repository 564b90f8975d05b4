"""Hostile sets and files: each is refused with one line before anything is decoded or trained on.

A case (``case``) spoils one of the good things that ``world`` makes and names what a user would then do. Cases are
in ``corpus``, kept by what is hostile: ``manifests``, ``names`` (and texts), ``tars``, ``tables``, ``images``,
``weights``, ``checkpoints``, ``labels``, ``configs`` (and recipes) and ``inputs`` (what is packed or judged by).
``forge`` signs a set as whoever publishes it can: every digest fits, so that no check may rest on one.

``tests/test_hostile.py`` runs them in one process, each with one of its commands. ``scripts/stress/hostile.py``
runs all of their commands, each in its own process, and measures memory and time.
"""
