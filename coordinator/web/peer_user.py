"""Which user of this machine is at the other end of a connection that comes from this machine.

A reverse proxy on the coordinator's host looks like a reader on that host, unless it says in a header that it is a proxy.
But it runs as a user of its own. Linux tells whose each end of a connection is, in /proc/net/tcp and tcp6; where there
is no such table, nobody can tell.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

End = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
"""Address and port of one end; an IPv4 address in IPv6 clothes is the IPv4 address."""
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def end_of(host: str, port: int) -> End:
    """One end of a connection, as `socket` names it.

    Raises:
        ValueError: that is no IP address.
    """
    return _plain(ipaddress.ip_address(host.partition("%")[0])), port


def owner(local: End, remote: End, tables: Iterable[Path] = TABLES) -> int | None:
    """The user id of whoever's socket has these two ends; None: nobody can tell."""
    for table in tables:
        try:
            lines = table.read_text("ascii", "replace").splitlines()[1:]
        except OSError:
            continue
        for found, user in _sockets(lines):
            if found == (local, remote):
                return user
    return None


def _sockets(lines: Iterable[str]) -> Iterator[tuple[tuple[End, End], int]]:
    for line in lines:
        fields = line.split()
        try:
            yield (_end(fields[1]), _end(fields[2])), int(fields[7])
        except (IndexError, ValueError):
            continue


def _end(text: str) -> End:
    """`0100007F:1F90`: words of 32 bits in the machine's own order, then the port."""
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[place : place + 8]) for place in range(0, len(address), 8)]
    ordered = (word[::-1] if sys.byteorder == "little" else word for word in words)
    return _plain(ipaddress.ip_address(b"".join(ordered))), int(port, 16)


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
