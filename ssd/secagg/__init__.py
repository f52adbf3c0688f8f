"""Secure aggregation: the pure pieces both sides need."""
