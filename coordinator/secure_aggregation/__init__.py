"""Secure aggregation on the coordinator: it carries messages, keeps the masked sum, and opens it.

Decisions are in `core.secure_aggregation`; cryptography is in `ssd.secagg`.
"""
