"""Addresses as operators write them: `host:port`, `[::1]:port`, `unix:/path`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where something listens or is reached. Either `path` (a Unix socket) or `host` and `port` (0: any free port)."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: a Unix socket or a loopback address."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """The text form that `parse_address` reads and gRPC takes."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address that a text means. An IPv6 address stands in brackets, and nothing else does.

    Raises:
        ValueError: the text is no address; the message says what one looks like.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError("a Unix socket needs a path: unix:/run/coordinator.sock")
        return Address(path=path)
    host, _, digits = text.rpartition(":")
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else -1
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        is_host = _is_ipv6(host)
    else:
        # No blanks, no control characters: a host may end up in the head of a proxy's request.
        is_host = bool(host) and host.isprintable() and not any(sign in host for sign in ":[]/ ")
    if not is_host or not 0 <= port <= 65535:
        raise ValueError(f"{text!r} is no address: write host:port, [::1]:port or unix:/path")
    return Address(host=host, port=port)


BY_ENVIRONMENT, NO_PROXY = "env", "off"
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""As gRPC reads them, the first that is set; `no_grpc_proxy` and `no_proxy` name hosts that are called directly."""


def check_proxy(value: str) -> str:
    """`env`, `off`, or the address of an HTTP CONNECT proxy.

    Raises:
        ValueError: it is none of them.
    """
    if value in (BY_ENVIRONMENT, NO_PROXY):
        return value
    address = value.removeprefix("http://").rstrip("/")
    try:
        if not value.startswith("http://"):
            raise ValueError
        found = parse_address(address)
    except ValueError:
        raise ValueError(f"{value!r} is no proxy: write env, off or http://host:port") from None
    if found.path or not found.port:
        raise ValueError(f"{value!r} is no proxy: write env, off or http://host:port")
    return f"http://{found}"


def proxy_of(address: Address, proxy: str, environ: Mapping[str, str]) -> str:
    """The HTTP proxy that a connection goes through; empty: none.

    This machine is never reached through a proxy: what has to stay here would leave it.

    Args:
        address: whom to reach.
        proxy: as `check_proxy` gives it.
        environ: the process environment.
    """
    if address.is_local or proxy == NO_PROXY:
        return ""
    if proxy != BY_ENVIRONMENT:
        return proxy
    for name in ("no_grpc_proxy", "no_proxy"):
        if any(
            address.host.endswith(each.strip()) for each in environ.get(name, "").split(",") if each.strip()
        ):
            return ""
    return next((environ[name] for name in _PROXY_VARIABLES if environ.get(name)), "")


def proxy_options(address: Address, proxy: str) -> list[tuple[str, int | str]]:
    """The same as options of a gRPC channel, which reads the environment itself."""
    if address.is_local or proxy == NO_PROXY:
        return [("grpc.enable_http_proxy", 0)]
    return [] if proxy == BY_ENVIRONMENT else [("grpc.http_proxy", proxy)]


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
