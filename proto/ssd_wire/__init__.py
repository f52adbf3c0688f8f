"""The contract in plain Python types, shared by both daemons. It imports neither torch nor a daemon."""
