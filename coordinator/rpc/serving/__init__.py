"""What all services share: credentials, limits, status codes, and call bookkeeping."""
