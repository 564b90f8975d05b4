"""The commands of ``distill``, one module for each command."""
