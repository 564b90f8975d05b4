"""Tables of a publication, done again: rows as YAML in, commands run, one page of results out.

``schema`` reads a table; ``jobs`` turns it into commands, with what each needs; ``plan`` chooses among them;
``runner`` runs them, one a device; ``results`` reads what they left; ``page`` writes it as Markdown and HTML.
"""
