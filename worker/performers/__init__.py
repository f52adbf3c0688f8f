"""What carries out the session's effects, one file per subject; the driver holds the table of who performs what.

A performer is awaited, so it ends soon: what takes time runs as a named task and answers with an event. What writes the
store lies beside it (`worker.store.effects`), what runs a participant in `worker.secure_aggregation`.
"""
