"""The coordinator: a daemon that runs rounds."""
