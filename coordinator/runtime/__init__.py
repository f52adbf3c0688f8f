"""The daemon's machinery, which knows nothing of rounds: mailbox, durable writes, clock, rate limits, listener, memory."""
