"""Tokens, certificates and revocations in memory: for tests and simulations, with the durable one's behaviour."""

from __future__ import annotations

import threading
from dataclasses import replace

from coordinator.errors import JournalConflict
from coordinator.ports.trust import CertificateRecord, Holder, TokenRecord
from coordinator.store.trust import check_add, check_holder, check_spend, check_withdraw


class MemoryTrust:
    """`coordinator.ports.trust.TrustStore` in memory. No other process can change it, so its mark never does."""

    def __init__(self) -> None:
        self._tokens: dict[str, TokenRecord] = {}
        self._certificates: dict[str, CertificateRecord] = {}
        self._revoked: set[Holder] = set()
        self._lock = threading.RLock()

    def add_token(self, token: TokenRecord) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            check_add(token, self._tokens.get(token.digest), revoked=token.holder in self._revoked)
            self._tokens[token.digest] = token

    def token(self, digest: str) -> TokenRecord | None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            return self._tokens.get(digest)

    def tokens(self) -> tuple[TokenRecord, ...]:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            return tuple(reversed(self._tokens.values()))

    def withdraw_token(self, digest: str, now: float) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            if not check_withdraw(self._tokens.get(digest)):
                self._tokens[digest] = replace(self._tokens[digest], withdrawn_at=now)

    def spend_token(self, digest: str, certificate: CertificateRecord, now: float) -> CertificateRecord:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            token = self._tokens.get(digest)
            bought = self._certificates[token.serial] if token and token.serial else None
            revoked = certificate.holder in self._revoked
            before = check_spend(token, bought, certificate, now, revoked=revoked)
            if before is not None:
                return before
            self._insert(certificate)
            self._tokens[digest] = replace(self._tokens[digest], used_at=now, serial=certificate.serial)
            return certificate

    def record_certificate(self, certificate: CertificateRecord) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            check_holder(certificate.holder, revoked=certificate.holder in self._revoked)
            self._insert(certificate)

    def _insert(self, certificate: CertificateRecord) -> None:
        if certificate.serial in self._certificates:
            raise JournalConflict(f"there is a certificate {certificate.serial} already")
        self._certificates[certificate.serial] = certificate

    def certificate(self, serial: str) -> CertificateRecord | None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            return self._certificates.get(serial)

    def certificates(self) -> tuple[CertificateRecord, ...]:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            return tuple(sorted(self._certificates.values(), key=lambda each: (each.issued_at, each.serial)))

    def revoke(self, holder: Holder, now: float) -> bool:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            news = holder not in self._revoked
            self._revoked.add(holder)
            for token in self._tokens.values():
                if token.holder == holder and token.used_at is None and token.withdrawn_at is None:
                    self._tokens[token.digest] = replace(token, withdrawn_at=now)
            return news

    def revoked(self) -> frozenset[Holder]:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._lock:
            return frozenset(self._revoked)

    def change_mark(self) -> int:
        """See `coordinator.ports.trust.TrustStore`."""
        return 0

    def close(self) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
