"""What a join token buys, once; and that whoever asks wrongly learns nothing from the answer."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Coroutine, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from coordinator.errors import ClientFault, Reason
from coordinator.identity.enrolment import CertificateIssuer, Issuer, Outcome
from coordinator.ports.trust import Holder, TokenRecord
from coordinator.store.trust import SqliteTrust
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.trust.authority import create_authority, new_key, subject_of_certificate, validity
from ssd.trust.join_token import new_secret, secret_digest
from ssd.trust.names import Role, Subject
from ssd.trust.requests import check_issued, make_request

START = 1_900_000_000.0
AUTHORITY = create_authority("f", days=1000, now=dt.datetime.fromtimestamp(START, dt.UTC))
KEY = new_key()
WORKER = Subject("f", Role.WORKER, "w1")


class HandClock:
    def __init__(self) -> None:
        self.now = START

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class IssuerPlace:
    """A issuer with a store of its own below `folder`, and one token for w1, good for an hour."""

    def __init__(self, folder: Path, days: float = 30.0) -> None:
        self.clock = HandClock()
        self.trust = SqliteTrust(Path(mkdtemp(dir=folder)))
        self.metrics = CoordinatorMetrics()
        self.bound: list[tuple[str, tuple[str, ...]]] = []
        self.taken: set[str] = set()
        self.issuer = CertificateIssuer(
            Issuer(authority=AUTHORITY, days=days), self.trust, self._bind, self.clock, self.metrics
        )
        self.secret = self.token()

    def token(
        self, name: str = "w1", role: Role = Role.WORKER, clients: tuple[str, ...] = ("a", "b")
    ) -> bytes:
        secret = new_secret()
        self.trust.add_token(
            TokenRecord(
                digest=secret_digest(secret),
                holder=Holder(role, name),
                clients=clients,
                created_at=self.clock.now,
                expires_at=self.clock.now + 3600,
            )
        )
        return secret

    async def _bind(self, worker: str, clients: Sequence[str]) -> None:
        if self.taken.intersection(clients):
            raise ClientFault(Reason.CLIENT_BOUND, "it belongs to another worker")
        self.bound.append((worker, tuple(clients)))

    def enroll(
        self, secret: bytes | None = None, subject: str = WORKER.uri, request: bytes | None = None
    ) -> bytes:
        call = self.issuer.enroll(
            self.secret if secret is None else secret,
            subject,
            make_request(KEY) if request is None else request,
        )
        return run(call).certificate.encode()

    def refused(self, **wrong: Any) -> ClientFault:
        before = (self.trust.tokens(), self.trust.certificates())
        with pytest.raises(ClientFault) as refused:
            self.enroll(**wrong)
        assert (self.trust.tokens(), self.trust.certificates()) == before
        return refused.value

    def count(self, outcome: Outcome, call: str = "enroll") -> float:
        labels = {"call": call, "outcome": outcome.value}
        value = self.metrics.registry.get_sample_value("ssd_coordinator_certificate_requests_total", labels)
        return value or 0.0


def run(call: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(call)


def test_a_token_buys_one_certificate_that_names_the_tokens_holder_over_the_asked_key(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    certificate = issuer.enroll()
    check_issued(certificate, AUTHORITY.certificate, WORKER, KEY.public_key())
    (record,) = issuer.trust.certificates()
    assert record.certificate.encode() == certificate
    assert issuer.trust.tokens()[0].serial == record.serial
    assert issuer.bound == [("w1", ("a", "b"))]
    ends = validity(certificate)[1]
    assert ends == dt.datetime.fromtimestamp(START, dt.UTC) + dt.timedelta(days=30)
    assert issuer.count(Outcome.ISSUED) == 1


def test_an_evaluator_gets_an_evaluators_certificate_and_no_clients(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    subject = Subject("f", Role.EVALUATOR, "e")
    certificate = issuer.enroll(issuer.token("e", Role.EVALUATOR, ()), subject.uri)
    assert subject_of_certificate(certificate) == subject
    assert issuer.bound == []


def test_a_lost_answer_comes_again_for_the_same_key_while_the_token_would_live(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    certificate = issuer.enroll()
    issuer.clock.now += 3599
    assert issuer.enroll() == certificate
    assert len(issuer.trust.certificates()) == 1
    assert issuer.count(Outcome.REPEATED) == 1
    issuer.clock.now += 1
    assert issuer.refused().reason is Reason.ENROLMENT_REFUSED
    assert issuer.count(Outcome.EXPIRED) == 1


def test_whatever_is_wrong_with_token_or_name_the_answer_is_the_same_and_the_metric_knows(
    tmp_path: Path,
) -> None:
    answers = {}

    def note(outcome: Outcome, issuer: IssuerPlace, **wrong: Any) -> None:
        fault = issuer.refused(**wrong)
        answers[outcome] = (fault.reason, fault.detail)
        assert issuer.count(outcome) == 1, outcome

    note(Outcome.UNKNOWN, IssuerPlace(tmp_path), secret=new_secret())
    note(Outcome.UNKNOWN, IssuerPlace(tmp_path), secret=b"")
    used = IssuerPlace(tmp_path)
    used.enroll()
    note(Outcome.USED, used, request=make_request(new_key()))
    expired = IssuerPlace(tmp_path)
    expired.clock.now += 3600
    note(Outcome.EXPIRED, expired)
    withdrawn = IssuerPlace(tmp_path)
    withdrawn.trust.withdraw_token(secret_digest(withdrawn.secret), START)
    note(Outcome.WITHDRAWN, withdrawn)
    revoked = IssuerPlace(tmp_path)
    revoked.trust.revoke(Holder(Role.WORKER, "w1"), START)
    note(Outcome.REVOKED, revoked)
    taken = IssuerPlace(tmp_path)
    taken.taken = {"b"}
    note(Outcome.CLIENTS_TAKEN, taken)
    for name in (
        "ssd://f/worker/w2",
        "ssd://f/operator/w1",
        "ssd://g/worker/w1",
        "w1",
        "",
        "ssd://f/worker/w1/x",
    ):
        note(Outcome.WRONG_NAME, IssuerPlace(tmp_path), subject=name)
    assert len(set(answers.values())) == 1
    assert len(answers) == 7


def test_a_bad_request_gets_the_same_answer_whatever_the_token_is_and_burns_nothing(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    good = make_request(KEY)
    for request in (b"", b"junk", good[:-1], good[:50], good + bytes(5000)):
        answers = set()
        for secret in (issuer.secret, new_secret()):
            fault = issuer.refused(secret=secret, request=request)
            answers.add((fault.reason, fault.detail))
        assert len(answers) == 1
        assert answers.pop()[0] is Reason.BAD_CERTIFICATE_REQUEST
    assert issuer.count(Outcome.BAD_REQUEST) == 10
    issuer.enroll()


def test_of_two_keys_at_once_one_wins(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)

    async def both() -> list[Any]:
        calls = [issuer.issuer.enroll(issuer.secret, WORKER.uri, make_request(new_key())) for _ in range(4)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = run(both())
    refused = [each for each in results if isinstance(each, ClientFault)]
    assert len(refused) == 3
    assert {fault.reason for fault in refused} == {Reason.ENROLMENT_REFUSED}
    assert len(issuer.trust.certificates()) == 1


def test_renewing_gives_the_same_name_over_the_new_key_and_records_it(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    issuer.enroll()
    key = new_key()
    issuer.clock.now += 20 * 86400
    made = run(issuer.issuer.renew(WORKER, make_request(key)))
    check_issued(made.certificate.encode(), AUTHORITY.certificate, WORKER, key.public_key())
    assert [record.serial for record in issuer.trust.certificates()][-1] == made.serial
    assert made.expires_at == issuer.clock.now + 30 * 86400
    assert issuer.count(Outcome.ISSUED, "renew") == 1


def test_a_revoked_holder_renews_nothing(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    issuer.enroll()
    issuer.trust.revoke(Holder(Role.WORKER, "w1"), START)
    with pytest.raises(ClientFault) as refused:
        run(issuer.issuer.renew(WORKER, make_request(new_key())))
    assert refused.value.reason is Reason.REVOKED
    assert len(issuer.trust.certificates()) == 1
    assert issuer.count(Outcome.REVOKED, "renew") == 1


def test_an_authority_that_has_expired_signs_nothing_and_burns_nothing(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path)
    issuer.clock.now += 1001 * 86400
    secret = issuer.token()
    assert issuer.refused(secret=secret).reason is Reason.INTERNAL


def test_nothing_outlives_the_authority(tmp_path: Path) -> None:
    issuer = IssuerPlace(tmp_path, days=3000)
    assert validity(issuer.enroll())[1] == validity(AUTHORITY.certificate)[1]
