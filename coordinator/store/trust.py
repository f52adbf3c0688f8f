"""Tokens, certificates and revocations over SQLite, in the state database. `coordinator.ports.trust.TrustStore`.

A connection of its own: the command line writes while the coordinator runs, and the coordinator notices
(`change_mark`).
"""

from __future__ import annotations

import sqlite3
from typing import Any

from coordinator.errors import JournalConflict
from coordinator.ports.trust import KEPT_PER_HOLDER, CertificateRecord, Holder, TokenRecord
from coordinator.store.journal import records
from coordinator.store.journal.database import Database
from ssd.trust.names import Role

_TOKEN_COLUMNS = "role, name, digest, clients, created_at, expires_at, withdrawn_at, used_at, serial"  # noqa: S105  # columns
_CERTIFICATE_COLUMNS = "role, name, serial, key_digest, certificate, issued_at, expires_at"


class SqliteTrust(Database):
    """`coordinator.ports.trust.TrustStore` in `<state_dir>/state.sqlite3`."""

    def add_token(self, token: TokenRecord) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._transaction("keeping a join token") as db:
            check_add(token, self.token(token.digest), revoked=self._is_revoked(token.holder))
            db.execute(
                "INSERT INTO join_tokens (digest, role, name, clients, created_at, expires_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    token.digest,
                    *_holder(token.holder),
                    records.names_text(token.clients),
                    token.created_at,
                    token.expires_at,
                ),
            )

    def token(self, digest: str) -> TokenRecord | None:
        """See `coordinator.ports.trust.TrustStore`."""
        rows = self._rows(f"SELECT {_TOKEN_COLUMNS} FROM join_tokens WHERE digest = ?", digest)  # noqa: S608
        return _to_token(rows[0]) if rows else None

    def tokens(self) -> tuple[TokenRecord, ...]:
        """See `coordinator.ports.trust.TrustStore`."""
        rows = self._rows(f"SELECT {_TOKEN_COLUMNS} FROM join_tokens ORDER BY position DESC")  # noqa: S608
        return tuple(_to_token(row) for row in rows)

    def withdraw_token(self, digest: str, now: float) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._transaction("withdrawing a join token") as db:
            if not check_withdraw(self.token(digest)):
                db.execute("UPDATE join_tokens SET withdrawn_at = ? WHERE digest = ?", (now, digest))

    def spend_token(self, digest: str, certificate: CertificateRecord, now: float) -> CertificateRecord:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._transaction("burning a join token") as db:
            token = self.token(digest)
            serial = token.serial if token else None
            before = check_spend(
                token,
                None if serial is None else self.certificate(serial),
                certificate,
                now,
                revoked=self._is_revoked(certificate.holder),
            )
            if before is not None:
                return before
            self._insert(db, certificate)
            db.execute(
                "UPDATE join_tokens SET used_at = ?, serial = ? WHERE digest = ?",
                (now, certificate.serial, digest),
            )
            return certificate

    def record_certificate(self, certificate: CertificateRecord) -> None:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._transaction("recording a certificate") as db:
            check_holder(certificate.holder, revoked=self._is_revoked(certificate.holder))
            self._insert(db, certificate)
            holder = _holder(certificate.holder)
            # A holder may renew as often as it is let; what no token bought is kept of the newest alone.
            db.execute(
                "DELETE FROM certificates WHERE role = ? AND name = ? AND serial <> ? AND serial NOT IN"
                " (SELECT serial FROM join_tokens WHERE serial IS NOT NULL) AND serial NOT IN"
                " (SELECT serial FROM certificates WHERE role = ? AND name = ? ORDER BY issued_at DESC, serial LIMIT ?)",
                (*holder, certificate.serial, *holder, KEPT_PER_HOLDER),
            )

    def certificate(self, serial: str) -> CertificateRecord | None:
        """See `coordinator.ports.trust.TrustStore`."""
        rows = self._rows(f"SELECT {_CERTIFICATE_COLUMNS} FROM certificates WHERE serial = ?", serial)  # noqa: S608
        return _to_certificate(rows[0]) if rows else None

    def certificates(self) -> tuple[CertificateRecord, ...]:
        """See `coordinator.ports.trust.TrustStore`."""
        rows = self._rows(f"SELECT {_CERTIFICATE_COLUMNS} FROM certificates ORDER BY issued_at, serial")  # noqa: S608
        return tuple(_to_certificate(row) for row in rows)

    def revoke(self, holder: Holder, now: float) -> bool:
        """See `coordinator.ports.trust.TrustStore`."""
        with self._transaction("revoking a holder") as db:
            news = db.execute(
                "INSERT INTO revocations (role, name, revoked_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (*_holder(holder), now),
            ).rowcount
            db.execute(
                "UPDATE join_tokens SET withdrawn_at = ? WHERE role = ? AND name = ? "
                "AND used_at IS NULL AND withdrawn_at IS NULL",
                (now, *_holder(holder)),
            )
            return bool(news)

    def revoked(self) -> frozenset[Holder]:
        """See `coordinator.ports.trust.TrustStore`."""
        return frozenset(
            Holder(Role(role), name) for role, name in self._rows("SELECT role, name FROM revocations")
        )

    def change_mark(self) -> int:
        """See `coordinator.ports.trust.TrustStore`."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def _is_revoked(self, holder: Holder) -> bool:
        return bool(self._rows("SELECT 1 FROM revocations WHERE role = ? AND name = ?", *_holder(holder)))

    @staticmethod
    def _insert(db: sqlite3.Connection, certificate: CertificateRecord) -> None:
        db.execute(
            f"INSERT INTO certificates ({_CERTIFICATE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                *_holder(certificate.holder),
                certificate.serial,
                certificate.key_digest,
                certificate.certificate,
                certificate.issued_at,
                certificate.expires_at,
            ),
        )


def _holder(holder: Holder) -> tuple[str, str]:
    return holder.role.value, holder.name


def _to_token(row: tuple[Any, ...]) -> TokenRecord:
    role, name, digest, clients, created_at, expires_at, withdrawn_at, used_at, serial = row
    return TokenRecord(
        digest=digest,
        holder=Holder(Role(role), name),
        clients=records.to_names(clients),
        created_at=created_at,
        expires_at=expires_at,
        withdrawn_at=withdrawn_at,
        used_at=used_at,
        serial=serial,
    )


def _to_certificate(row: tuple[Any, ...]) -> CertificateRecord:
    role, name, serial, key_digest, certificate, issued_at, expires_at = row
    return CertificateRecord(
        serial=serial,
        holder=Holder(Role(role), name),
        key_digest=key_digest,
        certificate=certificate,
        issued_at=issued_at,
        expires_at=expires_at,
    )


def check_add(token: TokenRecord, present: TokenRecord | None, *, revoked: bool) -> None:
    """A new token for a holder who may still take part."""
    if present is not None:
        raise JournalConflict("this token is there already")
    if token.used_at is not None or token.withdrawn_at is not None or token.serial is not None:
        raise JournalConflict("a new token is neither used nor withdrawn")
    if not token.created_at < token.expires_at:
        raise JournalConflict("a token expires after it was made")
    check_holder(token.holder, revoked=revoked)


def check_holder(holder: Holder, *, revoked: bool) -> None:
    """Nothing is issued to a revoked holder."""
    if revoked:
        raise JournalConflict(f"{holder.role.value} {holder.name} is revoked, for ever")


def check_withdraw(token: TokenRecord | None) -> bool:
    """True if the token was withdrawn before."""
    if token is None:
        raise JournalConflict("there is no such token")
    if token.used_at is not None:
        raise JournalConflict(f"the token of {token.holder.name} was used: revoke the holder instead")
    return token.withdrawn_at is not None


def check_spend(
    token: TokenRecord | None,
    bought: CertificateRecord | None,
    certificate: CertificateRecord,
    now: float,
    *,
    revoked: bool,
) -> CertificateRecord | None:
    """The certificate that the same key bought with this token before; None if the token is open.

    Args:
        token: the token, if it is known.
        bought: the certificate it bought, if it did.
        certificate: what it is to buy now.
        now: Unix seconds.
        revoked: whether its holder is.
    """
    if token is None:
        raise JournalConflict("there is no such token")
    check_holder(token.holder, revoked=revoked)
    if token.holder != certificate.holder:
        raise JournalConflict(
            f"the token is {token.holder.name}'s, the certificate {certificate.holder.name}'s"
        )
    if bought is not None:
        if bought.key_digest == certificate.key_digest and now < token.expires_at:
            return bought
        raise JournalConflict(f"the token of {token.holder.name} is used")
    if not token.is_open(now):
        raise JournalConflict(f"the token of {token.holder.name} is expired or withdrawn")
    return None
