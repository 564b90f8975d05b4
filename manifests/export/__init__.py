"""Write files of a patch set for other tools, and finish a build."""
