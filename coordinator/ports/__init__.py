"""The interfaces the coordinator needs of the outside world, and the records that cross them.

Each port states its behaviour; one conformance suite in `tests/contract` runs against every implementation. Records
are plain frozen data: the driver turns them into core state and back, and protobuf never appears.
"""
