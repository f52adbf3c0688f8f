"""The bodies of uploads and their layouts."""
