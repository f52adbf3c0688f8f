"""The coordinator's part of the protocol: collecting messages, rebuilding what is missing, opening the sum."""
