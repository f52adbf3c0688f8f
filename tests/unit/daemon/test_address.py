"""Addresses: what an operator may write, and whether only this machine can reach it."""

from __future__ import annotations

import pytest

from ssd.daemon.address import Address, check_proxy, parse_address, proxy_of, proxy_options


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


class TestProxies:
    HERE, THERE = parse_address("127.0.0.1:7443"), parse_address("fed.example.org:7443")

    @pytest.mark.parametrize(
        ("address", "proxy", "environ", "expected"),
        [
            (THERE, "env", {}, ""),
            (THERE, "env", {"https_proxy": "http://p:1"}, "http://p:1"),
            (THERE, "env", {"http_proxy": "http://p:1"}, "http://p:1"),
            (THERE, "env", {"http_proxy": "http://p:1", "https_proxy": "http://q:1"}, "http://q:1"),
            (THERE, "env", {"https_proxy": "http://p:1", "no_proxy": "a.b, example.org"}, ""),
            (THERE, "env", {"https_proxy": "http://p:1", "no_grpc_proxy": "fed.example.org"}, ""),
            (THERE, "env", {"https_proxy": "http://p:1", "no_proxy": "other.org,"}, "http://p:1"),
            (THERE, "off", {"https_proxy": "http://p:1"}, ""),
            (
                THERE,
                "http://mine:3128",
                {"https_proxy": "http://p:1", "no_proxy": "example.org"},
                "http://mine:3128",
            ),
            (HERE, "env", {"https_proxy": "http://p:1"}, ""),
            (HERE, "http://mine:3128", {}, ""),
            (parse_address("unix:/run/c.sock"), "http://mine:3128", {}, ""),
        ],
    )
    def test_whom_a_connection_goes_through(
        self, address: Address, proxy: str, environ: dict[str, str], expected: str
    ) -> None:
        assert proxy_of(address, proxy, environ) == expected

    def test_grpc_is_told_the_same(self) -> None:
        assert proxy_options(self.HERE, "http://mine:3128") == [("grpc.enable_http_proxy", 0)]
        assert proxy_options(self.THERE, "off") == [("grpc.enable_http_proxy", 0)]
        assert proxy_options(self.THERE, "env") == []
        assert proxy_options(self.THERE, "http://mine:3128") == [("grpc.http_proxy", "http://mine:3128")]

    def test_what_a_setting_may_say(self) -> None:
        assert [check_proxy(each) for each in ("env", "off", "http://p:3128", "http://[::1]:1/")] == [
            "env", "off", "http://p:3128", "http://[::1]:1"]  # fmt: skip
        for wrong in (
            "",
            "p:3128",
            "https://p:1",
            "http://p",
            "http://p:0",
            "http://",
            "socks5://p:1",
            "http://unix:/x",
        ):
            with pytest.raises(ValueError, match="is no proxy: write env, off or http://host:port"):
                check_proxy(wrong)


@pytest.mark.parametrize("host", ["h\r\nX-Evil: 1", "h x", "h\tx", "h/x", "h\x00", "h\u2028x"])
def test_a_host_holds_nothing_that_could_end_up_in_somebodys_head_of_a_request(host: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        parse_address(f"{host}:443")
