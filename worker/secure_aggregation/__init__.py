"""Secure aggregation on the worker: its identity, its rounds, and masked uploads. Cryptography is in `ssd.secagg`."""
