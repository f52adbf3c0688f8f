"""The worker: a daemon that trains the clients it hosts."""
