"""The worker's decisions, without sockets, clock, randomness or disk."""
