"""Hostile sets and files: each is refused with one line before anything is decoded or trained on.

A case (``case``) spoils one of the good things that ``world`` makes and names what a user would then do. Cases are
in ``corpus``, kept by what is hostile: ``manifests``, ``names`` (and texts), ``tars``, ``tables``, ``images``,
``weights``, ``checkpoints``, ``labels``, ``configs`` (and recipes) and ``inputs`` (what is packed or judged by).
``forge`` signs a set as an attacker can: every digest fits, so that no check may rely on one.

``tests/test_hostile.py`` runs them in one process, each by one of its entrances; ``scripts/hostile.py`` by all of
them, each in a process of its own, with memory and time.
"""
