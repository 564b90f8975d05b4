"""One module a command of ``distill``."""
