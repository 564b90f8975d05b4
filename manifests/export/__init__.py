"""Files of a patch set for other tools, and the last step of every build."""
