"""What gRPC itself holds a peer to, before a byte of a message is looked at.

A message is refused at its declared length, before it is received. Everything here was tried against the C core over
raw HTTP/2 (`tests/hostile/wire/test_http2.py`), because nothing of it is promised in gRPC's documentation.
"""

from __future__ import annotations

import math

from coordinator.config.sections import LimitsSection

LOOKAHEAD_BYTES = 256 << 10
HARD_LIMIT_FACTOR = 2
"""gRPC's own limit lies above ours: what is between the two gets our refusal, with a reason and a metric."""
IDENTITY_ONLY = 1
"""Bit set of the compression algorithms taken: none of them. A bomb is never inflated; the call ends UNIMPLEMENTED."""
MAX_METADATA_BYTES = 16 << 10
PING_INTERVAL_MS = 10_000
PING_STRIKES = 2
"""Pings sooner than the interval that are overlooked; one more ends the connection."""


def server_options(limits: LimitsSection) -> list[tuple[str, int]]:
    """Channel arguments of the server."""
    return [
        ("grpc.max_receive_message_length", HARD_LIMIT_FACTOR * limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ONLY),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", limits.calls_per_connection),
        ("grpc.server_handshake_timeout_ms", _milliseconds(limits.handshake_seconds)),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.idle_seconds)),
        # What a stream may send ahead of being read. Left to itself gRPC raises it to megabytes for each of them.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        # The port belongs to one process; a second coordinator must fail to bind, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS),
        ("grpc.http2.max_ping_strikes", PING_STRIKES),
    ]


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(1000 * seconds))
