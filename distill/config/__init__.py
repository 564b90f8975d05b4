"""Configs of runs: schema, packaged presets, overrides and the reference of keys."""
