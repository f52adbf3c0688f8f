"""Ports for daemons that are told where to listen, and that come back to the same place when they are restarted.

A port that was free a moment ago is free for everybody. Between the choice and the daemon's listening, and while a
daemon is down, the system would give an ephemeral port to any connection or to a test in another process. So these lie
below the ephemeral range of Linux, and every process chooses from a block of its own, which it claims by holding the
block's first port bound.
"""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator

FIRST, BEYOND, BLOCK = 16_384, 32_768, 128
"""Blocks of 128 ports; IANA gives some of them names, Linux none to a connection."""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on and no other test process chooses."""
    ports = _mine()
    # A closed connection keeps its port for a minute. Daemons listen there all the same, so such ports will do if, after
    # many quick tests, there are no others.
    for fresh in (True, False):
        for _ in range(BLOCK):
            port = next(ports)
            if _is_free(port, fresh=fresh):
                return port
    raise AssertionError("every port of this process is in use")


def _is_free(port: int, *, fresh: bool) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(not fresh))
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


@functools.cache
def _mine() -> Iterator[int]:
    for first in range(FIRST, BEYOND, BLOCK):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return itertools.cycle(range(first + 1, first + BLOCK))
    raise AssertionError("no block of ports is free")


_claims: list[socket.socket] = []
"""Held as long as the process lives."""
