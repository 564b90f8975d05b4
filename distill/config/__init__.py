"""Configs of runs: schema, packaged presets, overrides and the documentation of all keys."""
