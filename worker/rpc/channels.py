"""Channels to the coordinator: the one place that knows which certificate is shown, and why it did not work.

The identity's files are looked at for every new channel, so a renewed certificate is in use from the next connection
on.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from ssd.daemon.address import BY_ENVIRONMENT, Address, parse_address, proxy_of, proxy_options
from ssd.trust.authority import LOCAL_NAME, CertificateRefused
from ssd.trust.diagnosis import Peer, diagnose
from ssd.trust.identity_files import Identity, IdentityFiles, IdentityMissing, read_identity
from ssd.trust.identity_store import IdentityStore
from worker.errors import IdentityUnusable, LinkBroken

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
)
UNUSABLE = "identity_unusable"
"""Reason of a link that was not even tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Channels:
    """Makes channels.

    Args:
        folder: of ca.pem, worker.pem and worker.key; None: without TLS.
        server_name: which the coordinator's certificate must carry; empty: the host part of the address.
        max_message_bytes: largest message either way.
        now: aware time.
        proxy: `[transport] proxy`; this machine is never reached through one.
    """

    folder: Path | None
    server_name: str = ""
    max_message_bytes: int
    now: Callable[[], dt.datetime]
    proxy: str = BY_ENVIRONMENT

    def identity(self) -> Identity | None:
        """The files as they are now; None: without TLS.

        Raises:
            IdentityUnusable: they are missing or wrong.
        """
        files = self._files()
        if files is None:
            return None
        try:
            IdentityStore(files.certificate.parent).recover()
            return read_identity(files, self.now())
        except IdentityMissing as error:
            raise IdentityUnusable(
                f"{error}. This worker has no identity yet: run `ssd-worker enroll` with the token of the federation's"
                " operator, or say in [transport] identity_dir where it is"
            ) from error
        except OSError as error:
            raise IdentityUnusable(f"{error}: let this worker's user read and write {self.folder}") from error
        except CertificateRefused as error:
            raise IdentityUnusable(f"{error}. Have a new one made: run `ssd-worker enroll` again") from error

    def stamp(self) -> object:
        """Changes when the certificate on disk does."""
        files = self._files()
        try:
            found = None if files is None else files.certificate.stat()
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_ino)

    def open(self, target: str) -> Any:
        """A channel of its own to a target.

        Raises:
            LinkBroken: the identity cannot be used now.
        """
        try:
            identity = self.identity()
        except IdentityUnusable as error:
            raise LinkBroken(UNUSABLE, str(error)) from error
        address = parse_address(target)
        options = [
            *_OPTIONS,
            *proxy_options(address, self.proxy),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
        ]
        if identity is None:
            return aio.insecure_channel(target, options=options)
        if self.server_name or address.path:
            options.append(("grpc.ssl_target_name_override", self._name(address)))
        own = identity.credential
        credentials = grpc.ssl_channel_credentials(identity.authority, own.key, own.certificate)
        return aio.secure_channel(target, credentials, options=options)

    async def explained(self, target: str, error: LinkBroken) -> LinkBroken:
        """The same failure to connect with its real cause, if TLS is the cause."""
        address = parse_address(target)
        if proxy_of(address, self.proxy, os.environ):
            return error  # looking there directly would say something else
        peer = Peer(host=address.host, port=address.port, path=address.path, name=self._name(address))
        found = await asyncio.to_thread(diagnose, peer, self._files())
        return error if found is None else LinkBroken(found.cause.value, found.sentence)

    def _name(self, address: Address) -> str:
        return self.server_name or address.host or LOCAL_NAME

    def _files(self) -> IdentityFiles | None:
        return None if self.folder is None else IdentityFiles.in_folder(self.folder, "worker")
