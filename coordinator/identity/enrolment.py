"""Issuing certificates while the coordinator runs: the first one for a join token, the next one for the present one.

Rules it keeps:

- Who somebody is comes from the token or from the present certificate, never from what is asked for.
- A token is burnt in the transaction that records the certificate it bought; only then the certificate leaves. If the
  answer is lost, the same key gets the same certificate again for as long as the token would have lived.
- Unknown, used, expired and withdrawn tokens, revoked holders and wrong names get one and the same answer. What it was
  is in the log and in a metric.
- Tokens are looked up by the hash of their secret: how long that takes says nothing about any token.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coordinator.config.sections import EnrolmentSection, TransportSection
from coordinator.errors import ClientFault, JournalConflict, NotPermitted, Reason
from coordinator.identity.authority import load_authority
from coordinator.ports.clock import Clock
from coordinator.ports.trust import CertificateRecord, Holder, TokenRecord, TrustStore
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.logs import event as log_event
from ssd.trust.authority import (
    CertificateRefused,
    Credential,
    PublicKey,
    federation_of,
    issue,
    serial_of,
    validity,
)
from ssd.trust.join_token import secret_digest
from ssd.trust.names import NameRefused, Subject
from ssd.trust.requests import key_digest, requested_key

log = logging.getLogger(__name__)

REFUSED = "this token does not enrol this name: have a new one made with `ssd-coordinator ca token`"

Bind = Callable[[str, Sequence[str]], Awaitable[None]]
"""Gives clients to a worker before it attends; raises `ClientFault` if one of them is another's."""


class Outcome(StrEnum):
    """What became of a request for a certificate. Values are stable: metrics and logs."""

    ISSUED = "issued"
    REPEATED = "repeated"
    """The answer of the first time again."""
    UNKNOWN = "unknown_token"
    USED = "used_token"
    EXPIRED = "expired_token"
    WITHDRAWN = "withdrawn_token"
    WRONG_NAME = "wrong_name"
    REVOKED = "revoked"
    CLIENTS_TAKEN = "clients_taken"
    """A client of the token belongs to another worker by now."""
    BAD_REQUEST = "bad_request"
    TOO_OFTEN = "too_often"


@dataclass(frozen=True, kw_only=True, slots=True)
class Issuer:
    """The authority at work.

    Args:
        authority: its certificate and key.
        days: how long what it signs is valid.
    """

    authority: Credential
    days: float

    @property
    def federation(self) -> str:
        """Whose authority it is."""
        return federation_of(self.authority.certificate)

    def sign(self, holder: Holder, key: PublicKey, now: float) -> CertificateRecord:
        """A certificate for a holder over a key.

        Raises:
            CertificateRefused: the authority is no longer valid.
        """
        subject = Subject(self.federation, holder.role, holder.name)
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        made = issue(self.authority, subject, days=self.days, now=at, public_key=key)
        return CertificateRecord(
            serial=serial_of(made.certificate),
            holder=holder,
            key_digest=key_digest(key),
            certificate=made.certificate.decode(),
            issued_at=now,
            expires_at=validity(made.certificate)[1].timestamp(),
        )


class CertificateIssuer:
    """Where certificates are asked for.

    Args:
        issuer: who signs.
        trust: what is remembered.
        bind: makes the token's clients the new worker's.
        clock: time.
        metrics: counts outcomes.
    """

    def __init__(
        self, issuer: Issuer, trust: TrustStore, bind: Bind, clock: Clock, metrics: CoordinatorMetrics
    ) -> None:
        self._issuer = issuer
        self._trust = trust
        self._bind = bind
        self._clock = clock
        self._metrics = metrics

    @property
    def authority(self) -> bytes:
        """The authority's certificate, PEM."""
        return self._issuer.authority.certificate

    async def enroll(self, secret: bytes, subject: str, request: bytes) -> CertificateRecord:
        """The certificate a token buys.

        Args:
            secret: the token's.
            subject: whom the token is for, as a URI.
            request: PKCS #10, DER.

        Raises:
            ClientFault: reason bad_certificate_request or enrolment_refused.
            StorageFailed: the token is as it was.
        """
        # Before the token is looked at, so that a bad request gets the same answer whatever the token is.
        key = self._key("enroll", request)
        now = self._clock.wall()
        digest = secret_digest(secret)
        token = await asyncio.to_thread(self._trust.token, digest)
        revoked = await asyncio.to_thread(self._trust.revoked)
        wrong = _judge(token, self._holder(subject), now, revoked)
        if token is None or wrong is not None:
            raise self._refused(wrong or Outcome.UNKNOWN, digest, subject)
        if token.used_at is None and token.clients:
            try:
                await self._bind(token.holder.name, token.clients)
            except ClientFault as fault:
                raise self._refused(Outcome.CLIENTS_TAKEN, digest, subject, fault.detail) from fault
        made = self._sign(token.holder, key, now)
        try:
            bought = await asyncio.to_thread(self._trust.spend_token, digest, made, now)
        except JournalConflict as conflict:
            # It was used with another key, or somebody was faster this very moment.
            raise self._refused(Outcome.USED, digest, subject, str(conflict)) from conflict
        self._issued("enroll", Outcome.ISSUED if bought is made else Outcome.REPEATED, bought)
        return bought

    async def renew(self, subject: Subject, request: bytes) -> CertificateRecord:
        """The next certificate of whom the present one names.

        Args:
            subject: of the certificate the caller came with.
            request: PKCS #10, DER.

        Raises:
            ClientFault: reason bad_certificate_request or revoked.
            StorageFailed: nothing was issued.
        """
        holder = Holder(subject.role, subject.name)
        made = self._sign(holder, self._key("renew", request), self._clock.wall())
        try:
            await asyncio.to_thread(self._trust.record_certificate, made)
        except JournalConflict as conflict:
            self._metrics.certificate_request("renew", Outcome.REVOKED.value)
            raise NotPermitted(Reason.REVOKED, str(conflict)) from conflict
        self._issued("renew", Outcome.ISSUED, made)
        return made

    def _holder(self, subject: str) -> Holder | None:
        try:
            named = Subject.parse(subject)
        except NameRefused:
            return None
        return Holder(named.role, named.name) if named.federation == self._issuer.federation else None

    def _key(self, call: str, request: bytes) -> PublicKey:
        try:
            return requested_key(request)
        except CertificateRefused as error:
            self._metrics.certificate_request(call, Outcome.BAD_REQUEST.value)
            raise ClientFault(Reason.BAD_CERTIFICATE_REQUEST, str(error)) from error

    def _sign(self, holder: Holder, key: PublicKey, now: float) -> CertificateRecord:
        try:
            return self._issuer.sign(holder, key, now)
        except CertificateRefused as error:
            log_event(log, logging.ERROR, "authority_unusable", detail=str(error))
            raise ClientFault(Reason.INTERNAL, "the authority cannot sign now: ask its operator") from error

    def _refused(self, outcome: Outcome, digest: str, subject: str, detail: str = "") -> ClientFault:
        self._metrics.certificate_request("enroll", outcome.value)
        log_event(
            log,
            logging.WARNING,
            "enrolment_refused",
            outcome=outcome.value,
            # The beginning of a hash of 256 random bits: tells the operator which, and nobody how to use it.
            token=digest[:12],
            subject=subject[:200],
            detail=detail,
        )
        return ClientFault(Reason.ENROLMENT_REFUSED, REFUSED)

    def _issued(self, call: str, outcome: Outcome, record: CertificateRecord) -> None:
        self._metrics.certificate_request(call, outcome.value)
        log_event(
            log,
            logging.INFO,
            "certificate_issued",
            call=call,
            outcome=outcome.value,
            role=record.holder.role.value,
            name=record.holder.name,
            serial=record.serial,
            until=f"{dt.datetime.fromtimestamp(record.expires_at, dt.UTC):%Y-%m-%d %H:%M} UTC",
        )


def _judge(
    token: TokenRecord | None, holder: Holder | None, now: float, revoked: Collection[Holder]
) -> Outcome | None:
    """What speaks against a token; None if nothing does, or only that it was used: then the key decides."""
    if token is None:
        return Outcome.UNKNOWN
    if token.holder != holder:
        return Outcome.WRONG_NAME
    if holder in revoked:
        return Outcome.REVOKED
    if token.withdrawn_at is not None:
        return Outcome.WITHDRAWN
    return Outcome.EXPIRED if now >= token.expires_at else None


log = logging.getLogger(__name__)


def open_issuer(
    transport: TransportSection,
    enrolment: EnrolmentSection,
    trust: TrustStore,
    bind: Bind,
    clock: Clock,
    metrics: CoordinatorMetrics,
) -> CertificateIssuer | None:
    """Where certificates are asked for; None if this coordinator issues none.

    An operator who wants the authority's key elsewhere takes it away: then nobody enrols and nobody renews here, and
    certificates come from `ca issue`.

    Raises:
        AuthorityRefused: hosts are to enrol, or a key is there, but it cannot be used.
    """
    if transport.insecure:
        return None
    key = enrolment.authority_key
    if not enrolment.listen and not key.exists():
        log_event(log, logging.INFO, "issues_no_certificates", detail=f"there is no authority's key in {key}")
        return None
    authority = load_authority(transport.authority, key)
    issuer = Issuer(authority=authority, days=enrolment.certificate_days)
    return CertificateIssuer(issuer, trust, bind, clock, metrics)
