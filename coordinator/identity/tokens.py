"""Join tokens as the operator sees them: made, listed and withdrawn in the state database, beside a running coordinator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.core.registry import CLIENT_NAME
from coordinator.errors import AuthorityRefused
from coordinator.identity.authority import read_file
from coordinator.ports.trust import Holder, TokenRecord, TrustStore
from ssd.daemon.address import parse_address
from ssd.trust.authority import CertificateRefused, federation_of, fingerprint, hosts_of
from ssd.trust.join_token import JoinToken, TokenRefused, new_secret
from ssd.trust.names import NameRefused, Role, Subject

SHOWN = 12
"""Digits of a token's digest that name it in lists: the token itself is nowhere kept."""


def make_token(
    store: TrustStore,
    bindings: Mapping[str, str],
    authority: Path,
    holder: Holder,
    clients: Sequence[str],
    *,
    address: str,
    lifetime: float,
    now: float,
) -> JoinToken:
    """A new token, kept by its digest.

    Args:
        store: where.
        bindings: client -> the worker it belongs to already.
        authority: file of the authority's certificate; its key is not needed.
        holder: whom the certificate will name.
        clients: the clients the holder will be bound to.
        address: where to enrol, or empty.
        lifetime: seconds.
        now: Unix seconds.

    Raises:
        AuthorityRefused: a name cannot stand in a certificate, the holder is revoked, a client is another worker's, or there is no
            authority.
    """
    certificate = read_file(authority)
    wrong = [client for client in clients if CLIENT_NAME.fullmatch(client) is None]
    if wrong:
        raise AuthorityRefused(f"{wrong[0]!r} is no client id: use 1 to 128 of A-Z a-z 0-9 . _ -")
    taken = [client for client in clients if bindings.get(client, holder.name) != holder.name]
    if taken:
        raise AuthorityRefused(
            f"client {taken[0]} belongs to worker {bindings[taken[0]]}: leave it out, and move it once the new worker has"
            " joined (`ssd-coordinator clients move`)"
        )
    if clients and holder.role is not Role.WORKER:
        raise AuthorityRefused(f"an {holder.role.value} hosts no clients: leave them out")
    if holder in store.revoked():
        raise AuthorityRefused(
            f"{holder.role.value} {holder.name} is revoked, for ever: give the host another name"
        )
    try:
        subject = Subject(federation_of(certificate), holder.role, holder.name)
        pin = bytes.fromhex(fingerprint(certificate))
        token = JoinToken(subject, address, pin, new_secret())
    except CertificateRefused as error:
        raise AuthorityRefused(f"{authority}: {error}") from error
    except (NameRefused, TokenRefused) as error:
        raise AuthorityRefused(str(error)) from error
    record = TokenRecord(
        digest=token.digest,
        holder=holder,
        clients=tuple(sorted(set(clients))),
        created_at=now,
        expires_at=now + lifetime,
    )
    store.add_token(record)
    return token


def find(store: TrustStore, shown: str) -> TokenRecord:
    """The token that a list names by the beginning of its digest.

    Raises:
        AuthorityRefused: none, or several.
    """
    found = [token for token in store.tokens() if shown and token.digest.startswith(shown.lower())]
    if len(found) != 1:
        raise AuthorityRefused(
            f"{shown!r} names {len(found) or 'no'} token{'s' if len(found) > 1 else ''}: `ca tokens` lists them"
        )
    return found[0]


def state(token: TokenRecord, now: float) -> str:
    """What became of a token, in a word."""
    if token.used_at is not None:
        return "used"
    if token.withdrawn_at is not None:
        return "withdrawn"
    return "open" if token.is_open(now) else "expired"


def enrolment_address(listen: str, coordinator_certificate: Path) -> str:
    """Where hosts elsewhere enrol, as far as this machine can tell; empty if it cannot.

    Args:
        listen: `[enrolment] listen`.
        coordinator_certificate: PEM; its first host stands in for a listening address that means "any".
    """
    if not listen:
        return ""
    address = parse_address(listen)
    if address.port == 0:
        return ""
    if address.host not in {"0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
        return str(address)
    try:
        hosts = hosts_of(coordinator_certificate.read_bytes())
    except (OSError, CertificateRefused):
        return ""
    if not hosts:
        return ""
    return f"[{hosts[0]}]:{address.port}" if ":" in hosts[0] else f"{hosts[0]}:{address.port}"
