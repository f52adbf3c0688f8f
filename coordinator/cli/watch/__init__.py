"""`ssd-coordinator watch`: a live view of a run in the terminal.

`view` is pure (a snapshot in, lines out); `screen` owns the terminal; `poller` asks the coordinator.
"""
