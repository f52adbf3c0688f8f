"""`ssd-coordinator ca` and `registry`: the certificate authority, join tokens and the registry of participants.

The work itself is in `coordinator.identity`; this room asks, confirms and prints.
"""
