"""Hostile sets and files. The programs must refuse each with one line, before they decode or train on the content.

A case (``case``) replaces one of the good files of ``world``, and names the commands of a user that read the file.
``corpus`` lists the cases. Each kind of file has a module: ``manifests``, ``names`` (and texts), ``tars``,
``tables``, ``images``, ``weights`` (with ``archives`` and ``pickles``), ``checkpoints``, ``labels``, ``configs``
(and recipes), ``inputs`` (images to pack or to evaluate on) and ``cifar``.

``forge`` signs a set: it computes all digests again, as the publisher of the set can. So a check of digests finds
no fault.

``tests/test_hostile.py`` runs each case with one of its commands, all in one process. ``scripts/stress/hostile.py``
runs each case with all of its commands, each in its own process, and measures memory and time.
"""
