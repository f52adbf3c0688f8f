"""What both daemons and the tools need: configuration, addresses, logs, command lines, doctors, traces, suggestions.

Nothing here knows a round, a worker or a coordinator.
"""
