"""Metrics, traces and short histories that people and Prometheus read. Nothing here changes what a round does."""
