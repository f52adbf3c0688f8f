"""The interfaces the coordinator needs of the outside world, and the records that cross them.

Each port states its behaviour; one conformance suite in `tests/contract` runs against every implementation.
"""
