"""Addresses as operators write them: `host:port`, `[::1]:port`, `unix:/path`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where something is reached. Either `path` (a Unix socket) or `host` and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it never leaves this machine: a Unix socket or a loopback address."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """The text form `parse` reads and gRPC takes."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """The address a text means.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError("a Unix socket needs a path: unix:/run/coordinator.sock")
        return Address(path=path)
    bracketed, closing, rest = text.removeprefix("[").partition("]")
    if text.startswith("[") and closing:
        host, port = bracketed, rest.removeprefix(":") if rest.startswith(":") else ""
    else:
        host, _, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() else -1
    if not host or not 0 <= number <= 65535 or (":" in host and not text.startswith("[")):
        raise ValueError(f"{text!r} is no address: write host:port, [::1]:port or unix:/path")
    return Address(host=host, port=number)
