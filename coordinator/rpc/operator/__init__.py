"""The operator service, its client, and the translation of inspection records to and from messages."""
