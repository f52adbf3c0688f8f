"""Attached workers: their sessions, what they are welcomed with, and which clients each may act for."""
