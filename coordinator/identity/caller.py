"""Who is calling: the certificate says, or, under `--insecure`, nobody does. The `Identity` port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.errors import NotPermitted, Reason
from ssd.trust.names import NameRefused, Subject, subject_of

TLS_VERSION = b"TLSv1.3"


class ClaimedIdentity:
    """Under `--insecure`: only peers on this machine can reach the port, so the hello's claim stands."""

    def subject(self, auth_context: Mapping[str, Sequence[bytes]]) -> Subject | None:
        """Nobody in particular."""
        return None


class CertificateIdentity:
    """Under TLS: the one identity in the subject alternative name of a certificate the authority signed.

    TLS itself has checked signature, dates and purpose. It cannot be told to refuse an older version of itself, so
    that is done here, as is everything about the name.

    Args:
        federation: the authority's; holders of other names are strangers.
    """

    def __init__(self, federation: str) -> None:
        self._federation = federation

    def subject(self, auth_context: Mapping[str, Sequence[bytes]]) -> Subject:
        """The certificate's holder."""
        if list(auth_context.get("ssl_tls_version", ())) != [TLS_VERSION]:
            raise NotPermitted(Reason.TLS_VERSION, "this port speaks TLS 1.3 only")
        names = [name.decode("utf-8", "replace") for name in auth_context.get("peer_uri", ())]
        try:
            subject = subject_of(names)
        except NameRefused as error:
            raise NotPermitted(Reason.NO_IDENTITY, str(error)) from error
        if subject.federation != self._federation:
            raise NotPermitted(
                Reason.WRONG_FEDERATION, f"{subject.uri} is not of the federation {self._federation!r}"
            )
        return subject
