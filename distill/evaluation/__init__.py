"""Measure networks on labelled images."""

SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"
"""Pattern of the name of an evaluation set."""
