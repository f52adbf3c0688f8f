"""A throw-away authority for tests, and channels with its certificates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from ssd.federating.identities import Identities
from ssd.trust.names import Role


class Pki(Identities):
    """What `ssd-coordinator ca init` makes in a folder, with the authority's key at hand."""

    def __init__(self, folder: Path, federation: str = "test") -> None:
        super().__init__(folder, dt.datetime.now(dt.UTC), federation)

    def credentials(self, role: Role, name: str) -> grpc.ChannelCredentials:
        own = self.issued(role, name)
        return grpc.ssl_channel_credentials(self.authority, own.key, own.certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        own = self.issued(Role.COORDINATOR, "coordinator")
        return grpc.ssl_server_credentials(
            [(own.key, own.certificate)], self.authority, require_client_auth=True
        )


def open_channel(
    address: str, pki: Pki | None, role: Role, name: str, options: Sequence[tuple[str, Any]] = ()
) -> grpc.Channel:
    """A channel as somebody; without an authority, without TLS."""
    if pki is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, pki.credentials(role, name), options)
