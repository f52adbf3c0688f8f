"""Metrics and traces of the worker."""
