"""What every call passes before its handler: rate limits, roles, and the limits on first messages."""
