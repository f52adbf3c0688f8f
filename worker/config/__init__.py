"""The worker's settings: sections, their checks, and the hosted clients that they describe."""
