"""Who may take part, as records: join tokens, the certificates they bought, and who is revoked.

A holder is a role and a name; the federation is the authority's own and never stored. A token's secret is not here:
only its SHA-256 is, so that whoever reads the database can join nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ssd.trust.names import Role

KEPT_PER_HOLDER = 8
"""Certificates of a holder that are remembered, beside the one its token bought."""


@dataclass(frozen=True, order=True, slots=True)
class Holder:
    """Whom a certificate names, within this federation."""

    role: Role
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateRecord:
    """A certificate this coordinator issued."""

    serial: str
    """Hex."""
    holder: Holder
    key_digest: str
    """Hex SHA-256 of the public key (DER, SubjectPublicKeyInfo)."""
    certificate: str
    """PEM."""
    issued_at: float
    """Unix seconds."""
    expires_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRecord:
    """A join token: the right to one certificate, until it expires."""

    digest: str
    """Hex SHA-256 of its secret."""
    holder: Holder
    clients: tuple[str, ...]
    """The clients its holder will be bound to; sorted."""
    created_at: float
    expires_at: float
    withdrawn_at: float | None = None
    used_at: float | None = None
    serial: str | None = None
    """Of the certificate it bought."""

    def is_open(self, now: float) -> bool:
        """Whether it still buys a certificate."""
        return self.used_at is None and self.withdrawn_at is None and now < self.expires_at


class TrustStore(Protocol):
    """What is remembered of tokens, certificates and revocations. Every method is one durable transaction.

    Behaviour common to all: a failure of the medium raises `coordinator.errors.StorageFailed`, a call that
    contradicts what is stored `coordinator.errors.JournalConflict`; both change nothing. May be called from any
    thread, while other processes write to the same store.
    """

    def add_token(self, token: TokenRecord) -> None:
        """Behaviour: refuses a digest that is there, a revoked holder, and a token that is not fresh."""
        ...

    def token(self, digest: str) -> TokenRecord | None:
        """The token of this digest, whatever became of it."""
        ...

    def tokens(self) -> tuple[TokenRecord, ...]:
        """Newest first."""
        ...

    def withdraw_token(self, digest: str, now: float) -> None:
        """Behaviour: the token buys nothing any more; again is no error. Refuses an unknown and a used one."""
        ...

    def spend_token(self, digest: str, certificate: CertificateRecord, now: float) -> CertificateRecord:
        """Behaviour: burns the token and records the certificate, both or neither, and returns it. A token that was
        burnt by the same key before returns the certificate of that time and changes nothing. Refuses any other
        token that is not open, another holder's certificate, and a revoked holder.
        """
        ...

    def record_certificate(self, certificate: CertificateRecord) -> None:
        """Behaviour: for one that no token bought; of those, the newest `KEPT_PER_HOLDER` of a holder are remembered.
        Refuses a serial that is there, and a revoked holder.
        """
        ...

    def certificate(self, serial: str) -> CertificateRecord | None:
        """The certificate of this serial."""
        ...

    def certificates(self) -> tuple[CertificateRecord, ...]:
        """Oldest first."""
        ...

    def revoke(self, holder: Holder, now: float) -> bool:
        """Behaviour: for ever; every open token of the holder is withdrawn. Whether it was news."""
        ...

    def revoked(self) -> frozenset[Holder]:
        """Everybody who ever was."""
        ...

    def change_mark(self) -> int:
        """Another number than before if another process may have changed anything; cheap."""
        ...

    def close(self) -> None:
        """Behaviour: nothing is asked afterwards."""
        ...
