"""Reproduce the tables of a publication: rows as YAML in, commands run, one page of results out.

``schema`` parses a table; ``options`` are what the user chose; ``digests`` identify the inputs. ``jobs`` turns table
and options into commands; ``plan`` selects the jobs of some rows; ``costs`` estimates them; ``runner`` runs them, one
on each device. ``records`` stores the state of the table's folder, ``results`` collects what the rows reached,
``page`` renders it as Markdown and HTML, without local paths.
"""
