"""Whose a connection of this machine is, and that a proxy of another user is nobody local."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.web.access import Access, Reader
from coordinator.web.peer_user import End, end_of, owner

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "01 00000000:00000000 00:00000000 00000000"


def request(peer: Any = ("127.0.0.1", 50000), own: Any = ("127.0.0.1", 9464), **headers: str) -> Any:
    """As aiohttp makes it of a connection."""
    named = {"peername": peer, "sockname": own}
    headers = {"Host": "127.0.0.1:9464", **headers}
    all_ = SimpleNamespace(
        get=headers.get, getall=lambda name, default: [headers[name]] if name in headers else default
    )

    class Headers(SimpleNamespace):
        def __contains__(self, name: str) -> bool:
            return name in headers

    return SimpleNamespace(
        headers=Headers(**vars(all_)), transport=SimpleNamespace(get_extra_info=lambda name: named[name])
    )


@pytest.mark.parametrize(
    ("user", "reader"),
    [(os.getuid(), Reader.LOCAL), (os.getuid() + 1, Reader.STRANGER), (None, Reader.STRANGER)],
)
def test_a_proxy_that_sends_no_header_is_told_by_its_user(user: int | None, reader: Reader) -> None:
    asked = []

    def whose(local: End, remote: End) -> int | None:
        asked.append((local, remote))
        return user

    assert Access(None, lambda: 0.0, whose).reader(request()) is reader
    # The peer's end of the connection, not the coordinator's: that one is always its own.
    assert asked == [(end_of("127.0.0.1", 50000), end_of("127.0.0.1", 9464))]


def test_a_unix_socket_has_no_such_ends() -> None:
    def whose(*_: End) -> int | None:
        raise AssertionError("nobody is asked")

    assert Access(None, lambda: 0.0, whose).reader(request(peer="", own="/run/x")) is Reader.LOCAL


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_real_connection_is_ours(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            ours, theirs = end_of(*client.getsockname()[:2]), end_of(*server.getsockname()[:2])
            assert owner(ours, theirs) == os.getuid()
        assert owner(theirs, end_of(host, 1)) is None


def test_tables_are_read_as_linux_writes_them(tmp_path: Path) -> None:
    four, six = tmp_path / "tcp", tmp_path / "tcp6"
    four.write_text(
        HEAD
        + f"   0: 0100007F:24F8 0100007F:C350 {REST}  1000        0 1\n"
        + f"   1: 0100007F:C350 0100007F:24F8 {REST}    33        0 2\n"
        + "   2: broken\n   3: zz:1 zz:2 a b c d x\n"
    )
    six.write_text(
        HEAD
        + f"   0: 0000000000000000FFFF00000100007F:C351 0000000000000000FFFF00000100007F:24F8 {REST}    34        0 3\n"
        + f"   1: 00000000000000000000000001000000:C352 00000000000000000000000001000000:24F8 {REST}    35        0 4\n"
    )
    own = end_of("127.0.0.1", 9464)
    tables = (tmp_path / "gone", four, six)
    assert owner(end_of("127.0.0.1", 50000), own, tables) == 33
    assert owner(end_of("::ffff:127.0.0.1", 50001), own, tables) == 34
    assert owner(end_of("::1", 50002), end_of("::1", 9464), tables) == 35
    assert owner(end_of("127.0.0.1", 50003), own, tables) is None
    assert owner(end_of("127.0.0.1", 50000), own, ()) is None
