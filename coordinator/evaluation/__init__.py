"""Measuring model versions: when a version is due, who measures it, and the records that remain."""
