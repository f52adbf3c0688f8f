"""Addresses as operators write them: `host:port`, `[::1]:port`, `unix:/path`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where something listens. Either `path` (a Unix socket) or `host` and `port` (0: any free port)."""

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
        """The text form `parse_address` reads and gRPC takes."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address a text means.

    Raises:
        ValueError: the text is none; the message says what one looks like.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError("a Unix socket needs a path: unix:/run/coordinator.sock")
        return Address(path=path)
    host, colon, digits = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    bare_v6 = ":" in host and not text.startswith("[")
    valid = colon and host and not bare_v6 and digits.isascii() and digits.isdigit() and int(digits) <= 65535
    if not valid:
        raise ValueError(f"{text!r} is no address: write host:port, [::1]:port or unix:/path")
    return Address(host=host, port=int(digits))
