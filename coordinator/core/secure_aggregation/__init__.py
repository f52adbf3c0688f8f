"""The round machine's part about secure aggregation: who takes part, what is awaited, when a sum can be opened.

Pure like all of `core`: no cryptography, no clock, no disk. The protocol itself is in `ssd.secagg`.
"""
