"""Federated methods: one room per family, one file per method."""
