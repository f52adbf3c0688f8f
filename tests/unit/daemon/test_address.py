"""Addresses: what an operator may write, and whether only this machine can reach it."""

from __future__ import annotations

import pytest

from ssd.daemon.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:7443", True),
        ("127.3.2.1:1", True),
        ("localhost:1", True),
        ("[::1]:0", True),
        ("unix:/run/c.sock", True),
        ("10.1.1.1:1", False),
        ("example.org:65535", False),
        ("[fe80::1%eth0]:1", False),
        ("[::]:7443", False),
        ("0.0.0.0:7443", False),
    ],
)
def test_an_address_is_written_as_it_was_read_and_knows_whether_it_is_local(text: str, local: bool) -> None:
    parsed = parse_address(text)
    assert str(parsed) == text
    assert parsed.is_local is local


def test_an_address_is_taken_apart() -> None:
    assert parse_address("[::1]:80") == Address(host="::1", port=80)
    assert parse_address("host.example:80") == Address(host="host.example", port=80)
    assert parse_address("unix:/run/a:b") == Address(path="/run/a:b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":1",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "host:+1",
        "host:1_0",
        "host:٣",
        "host:" + "9" * 5000,
        "unix:",
        "[]:1",
    ],
)
def test_what_is_no_address_is_refused_and_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"write host:port|needs a path"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "::1:5",
        "[::1]",
        "[::1:80",
        "::1]:80",
        "[::1]x:80",
        "[::1]80",
        "[localhost]:80",
        "[10.0.0.1]:80",
        "[[::1]]:80",
    ],
)
def test_brackets_hold_an_ipv6_address_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        parse_address(text)
