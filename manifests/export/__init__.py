"""Write the files of a patch set that other tools read, and the last files of a build."""
