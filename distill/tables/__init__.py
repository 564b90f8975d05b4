"""Tables of a publication, done again: rows as YAML in, commands run, one page of results out.

``schema`` reads a table, ``wish`` is what a user says of it, ``pins`` know its inputs again; ``jobs`` turns both into
commands, with what each needs, ``plan`` chooses among them, ``runner`` runs them, one a device. ``records`` is what
the folder remembers of them,
``results`` what they reached, ``page`` shows it as Markdown and HTML, ``portable`` leaves out where files lay.
"""
