"""Configuration: its schema, packaged presets, overrides and reference."""
