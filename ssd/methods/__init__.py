"""Federated methods, one per file."""
