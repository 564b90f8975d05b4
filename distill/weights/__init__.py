"""Weight files: read, write, and load into a network."""
