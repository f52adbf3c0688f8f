"""The coordinator's decisions, without sockets, clock, randomness or disk."""
