"""What both daemons and the tools need: settings text, logs, the terminal, completion, suggestions.

Nothing here knows a round, a worker or a coordinator.
"""
