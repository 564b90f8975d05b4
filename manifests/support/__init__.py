"""What both programs share: console, files, processes, validation."""
