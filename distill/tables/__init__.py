"""Reproduce the tables of a publication: read a table, run its commands, and write a page of results.

``schema`` parses a table, ``options`` has the options of the user, and ``jobs`` makes commands from these two.
``plan`` selects the jobs of some rows, ``costs`` estimates costs, and ``runner`` runs one job on each device at a
time. ``records`` stores the state of the table's folder, ``results`` computes the results of the rows, and ``page``
renders the results as Markdown and HTML without local paths.
"""
