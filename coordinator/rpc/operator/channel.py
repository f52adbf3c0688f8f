"""How an operator reaches the coordinator: which certificate is shown, and why it did not work."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import grpc

from coordinator.errors import ConfigInvalid, IdentityUnusable
from coordinator.runtime.clock import SystemClock
from ssd.daemon.address import parse_address
from ssd.trust.authority import LOCAL_NAME, CertificateRefused
from ssd.trust.diagnosis import Peer, diagnose
from ssd.trust.identity_files import IdentityFiles, IdentityMissing, read_identity

LARGEST_REPLY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom to call, and as whom.

    Args:
        address: of the coordinator, host:port or unix:/path.
        pki: folder with ca.pem, operator.pem and operator.key; None: without TLS, on this machine only.
    """

    address: str
    pki: Path | None

    def open_channel(self) -> grpc.Channel:
        """A channel to the coordinator.

        Raises:
            ConfigInvalid: the address is none, or of another machine without TLS.
            IdentityUnusable: the operator's files are missing or wrong.
        """
        try:
            address = parse_address(self.address)
        except ValueError as error:
            raise ConfigInvalid(str(error)) from error
        options: list[tuple[str, int | str]] = [
            # The coordinator is reached directly or through a tunnel; a proxy meant for the web would break that.
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", LARGEST_REPLY_BYTES),
        ]
        if self.pki is None:
            if not address.is_local:
                raise ConfigInvalid(
                    f"{self.address} is another machine, and --insecure is for this one: leave it out and say with --pki"
                    " where operator.pem is"
                )
            return grpc.insecure_channel(self.address, options)
        if address.path:
            options.append(("grpc.ssl_target_name_override", LOCAL_NAME))
        return grpc.secure_channel(self.address, self._credentials(), options)

    def why_not(self) -> str:
        """A sentence on why TLS kept the call from happening; empty if it did not."""
        address = parse_address(self.address)
        peer = Peer(host=address.host, port=address.port, path=address.path, name=address.host or LOCAL_NAME)
        found = diagnose(peer, None if self.pki is None else self._files())
        return "" if found is None else found.sentence

    def _files(self) -> IdentityFiles:
        assert self.pki is not None
        return IdentityFiles.in_folder(self.pki, "operator")

    def _credentials(self) -> grpc.ChannelCredentials:
        try:
            identity = read_identity(self._files(), dt.datetime.fromtimestamp(SystemClock().wall(), dt.UTC))
        except IdentityMissing as error:
            raise IdentityUnusable(
                f"{error}. Say with --pki (or SSD_PKI) which folder has ca.pem, operator.pem and operator.key; a"
                " coordinator on this machine that runs without TLS is asked with --insecure"
            ) from error
        except CertificateRefused as error:
            raise IdentityUnusable(
                f"{error}. Have a new one made: `ssd-coordinator ca issue --role operator`"
            ) from error
        return grpc.ssl_channel_credentials(
            identity.authority, identity.credential.key, identity.credential.certificate
        )
