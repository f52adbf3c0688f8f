"""What contradicts the store of tokens and certificates: the checks every such store makes before it changes anything."""

from __future__ import annotations

from coordinator.errors import JournalConflict
from coordinator.ports.trust import CertificateRecord, Holder, TokenRecord


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
