"""Differential privacy: settings, noise, and the account of what was spent."""
