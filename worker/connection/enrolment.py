"""Joining a federation: from a join token to an identity on this host.

Rules it keeps:

- The key is made here and never leaves.
- Nothing is said to whoever answers before it has shown the authority that the token's pin is of; then a connection
  that trusts exactly this authority carries the token.
- The key is on the disk before the token is spent: whatever is lost on the way, the same command again gets the same
  certificate, for as long as the token lives.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssd.daemon.address import Address, parse_address
from ssd.trust.authority import CertificateRefused, fingerprint, subject_of_certificate, validity
from ssd.trust.first_contact import ContactFailed, OtherNameMet, StrangerMet, meet
from ssd.trust.identity_store import IdentityStore
from ssd.trust.join_token import JoinToken, TokenRefused, parse
from ssd.trust.names import Subject
from ssd.trust.requests import check_issued, make_request
from worker.config.sections import WorkerSection
from worker.errors import EnrolmentRefused, LinkBroken, StorageFailed

WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between tries, while the coordinator is busy or away."""


class Ask(Protocol):
    """One call of `Enrolment.Enroll`."""

    def __call__(
        self, address: Address, authority: bytes, name: str, token: JoinToken, request: bytes
    ) -> bytes:
        """The certificate, PEM, from a coordinator of this authority alone.

        Raises:
            EnrolmentRefused: for good.
            LinkBroken: trying again may help.
        """
        ...


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What came of it."""

    subject: Subject
    folder: Path
    not_after: dt.datetime
    fresh: bool
    """False if the identity was there already."""


def for_this_host(text: str, coordinator: str | None, own: WorkerSection) -> tuple[JoinToken, Address]:
    """A token as it was handed over, and where to go with it.

    Args:
        text: the token.
        coordinator: where to go instead of the address in the token.
        own: of the host's configuration; a name it gives the worker must be the token's.

    Raises:
        EnrolmentRefused: it is none, not for this host, or nobody knows where to go.
    """
    try:
        token = parse(text)
    except TokenRefused as error:
        raise EnrolmentRefused(str(error)) from error
    if "name" in own.model_fields_set and own.name != token.subject.name:
        raise EnrolmentRefused(
            f"[worker] name is {own.name!r}, but the token is for {token.subject.name!r}: change one of them"
        )
    where = coordinator or token.address
    if not where:
        raise EnrolmentRefused(
            "the token does not say where to enrol: add --coordinator HOST:PORT, the enrolment port"
        )
    try:
        address = parse_address(where)
    except ValueError as error:
        raise EnrolmentRefused(f"--coordinator: {error}") from error
    if address.path:
        raise EnrolmentRefused("--coordinator: the enrolment port is host:port")
    return token, address


def enrol(
    token: JoinToken,
    address: Address,
    folder: Path,
    ask: Ask,
    *,
    server_name: str = "",
    replace: bool = False,
    proxy: str = "",
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> Enrolled:
    """Get the identity a token is for, and keep it in a folder.

    Args:
        token: of the federation's operator.
        address: of the coordinator's enrolment port.
        folder: where ca.pem, worker.pem and worker.key go.
        ask: makes the call.
        server_name: which the coordinator's certificate must carry; empty: the host part of the address.
        replace: put it in the place of an identity that is there.
        proxy: URL of the HTTP proxy that leads to the coordinator; empty: it is called directly.
        now: aware time.
        sleep: waits between tries.

    Raises:
        EnrolmentRefused: the coordinator is another, refuses or cannot be reached, or an identity is in the way.
        StorageFailed: the folder cannot be written.
    """
    store = IdentityStore(folder)
    try:
        store.recover()
        if not replace and (found := _present(store, token, now())) is not None:
            return found
        authority = _meet(token, address, server_name, proxy)
        key = store.key_to_be()
        certificate = _asked(ask, address, authority, server_name, token, make_request(key), sleep)
        check_issued(certificate, authority, token.subject, key.public_key())
        store.install(certificate, authority)
    except CertificateRefused as error:
        raise EnrolmentRefused(f"the coordinator's answer cannot be used: {error}") from error
    except OSError as error:
        raise StorageFailed(
            f"{error.filename or folder} cannot be used: {error.strerror or error}; make {folder} writable, then enrol"
            " again with the same token"
        ) from error
    return Enrolled(token.subject, folder, validity(certificate)[1], fresh=True)


def _present(store: IdentityStore, token: JoinToken, now: dt.datetime) -> Enrolled | None:
    """The identity that is there, if it is the token's; None if there is none that still counts."""
    try:
        certificate, authority = store.certificate.read_bytes(), store.authority.read_bytes()
        subject, (_, not_after) = subject_of_certificate(certificate), validity(certificate)
        pin = bytes.fromhex(fingerprint(authority))
    except (FileNotFoundError, CertificateRefused):
        return None
    if now >= not_after:
        return None
    if subject != token.subject or pin != token.pin:
        raise EnrolmentRefused(
            f"{store.folder} holds the identity of {subject.uri}: give this one another folder, or add --replace if this"
            " host is to be somebody else from now on"
        )
    return Enrolled(subject, store.folder, not_after, fresh=False)


def _meet(token: JoinToken, address: Address, server_name: str, proxy: str) -> bytes:
    try:
        return meet(address.host, address.port, token.pin, name=server_name, proxy=proxy)
    except StrangerMet as error:
        raise EnrolmentRefused(
            f"whoever answers at {address} is not the coordinator this token is for: its authority is another. Nothing"
            " was sent. Is the address right? If it is, tell the operator: somebody may be in between"
        ) from error
    except OtherNameMet as error:
        raise EnrolmentRefused(
            f"the certificate of the coordinator at {address} does not carry the name {server_name or address.host!r}: use"
            " a name it carries (--coordinator), say it with --server-name, or have the operator issue one with this host"
        ) from error
    except ContactFailed as error:
        raise EnrolmentRefused(
            f"no enrolment at {address} ({error}): is the coordinator running with [enrolment] listen, and is that its"
            " address? Say which one with --coordinator"
        ) from error


def _asked(
    ask: Ask,
    address: Address,
    authority: bytes,
    server_name: str,
    token: JoinToken,
    request: bytes,
    sleep: Callable[[float], None],
) -> bytes:
    for wait in (*WAITS_SECONDS, None):
        try:
            return ask(address, authority, server_name, token, request)
        except LinkBroken as broken:
            if wait is None:
                raise EnrolmentRefused(
                    f"{address} did not answer ({broken}): try again in a while; the token stays good until it expires"
                ) from broken
            sleep(wait)
    raise AssertionError("the last try either returns or raises")
