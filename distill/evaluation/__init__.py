"""Measure networks on labelled images."""
