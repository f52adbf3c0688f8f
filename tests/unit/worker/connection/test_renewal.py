"""A certificate is renewed when two thirds of its life have passed, tried again when that fails, and kept whole."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd.trust.authority import Credential, create_authority, issue, new_key, validity
from ssd.trust.identity_store import IdentityStore
from ssd.trust.names import Role, Subject
from ssd.trust.requests import requested_key
from worker.connection.renewal import LONGEST_SLEEP_SECONDS, Renewal
from worker.errors import LinkBroken
from worker.telemetry.metrics import Metrics

START = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
AUTHORITY = create_authority("f", days=1000, now=START)
WORKER = Subject("f", Role.WORKER, "w")
HOUR, DAY = 3600.0, 86400.0


class Enough(Exception):
    """Ends what would go on for ever."""


class Host:
    """A worker's folder, a clock moved by sleeping, and a coordinator that signs or not."""

    def __init__(self, root: Path, *, days: float = 30.0, until: float = 100 * DAY) -> None:
        self.store = IdentityStore(root / "identity")
        self.elapsed = 0.0
        self.until = until
        self.days = days
        self.asked_at: list[float] = []
        self.slept: list[float] = []
        self.fails: Callable[[], Exception | None] = lambda: None
        self.metrics = Metrics("test")
        key = self.store.key_to_be()
        self.store.install(self.sign(key.public_key()).certificate, AUTHORITY.certificate)
        self.renewal = Renewal(store=self.store, ask=self.ask, clock=self, now=self.now, metrics=self.metrics)

    def sign(self, key: object, subject: Subject = WORKER) -> Credential:
        return issue(AUTHORITY, subject, days=self.days, now=self.now(), public_key=key)  # type: ignore[arg-type]

    async def ask(self, request: bytes) -> bytes:
        self.asked_at.append(self.elapsed)
        failure = self.fails()
        if failure is not None:
            raise failure
        return self.sign(requested_key(request)).certificate

    def now(self) -> dt.datetime:
        return START + dt.timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    def uniform(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.elapsed += seconds
        if self.elapsed >= self.until:
            raise Enough

    def keep(self) -> None:
        with pytest.raises(Enough):
            asyncio.run(self.renewal.keep())

    def pair(self) -> Credential:
        return Credential(self.store.certificate.read_bytes(), self.store.key.read_bytes())

    def count(self, outcome: str) -> float:
        return self.metrics.renewals.labels(outcome)._value.get()


def test_it_is_renewed_a_little_before_two_thirds_of_every_life(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.keep()
    expected = 30 * DAY * (2 / 3 - 0.05 / 2)
    assert len(host.asked_at) == 5
    gaps = [after - before for before, after in itertools.pairwise([0.0, *host.asked_at])]
    assert gaps == pytest.approx([expected] * 5, abs=LONGEST_SLEEP_SECONDS)
    assert host.pair().matches()
    assert validity(host.pair().certificate)[1] > host.now()
    assert host.count("renewed") == 5


def test_a_certificate_of_seconds_is_renewed_in_seconds(tmp_path: Path) -> None:
    host = Host(tmp_path, days=20 / DAY, until=100)
    host.keep()
    assert host.asked_at[0] == pytest.approx(20 * (2 / 3 - 0.025), abs=0.01)
    assert len(host.asked_at) >= 6


def test_every_renewal_has_a_new_key(tmp_path: Path) -> None:
    host = Host(tmp_path)
    keys = {host.pair().key}
    for _ in range(3):
        asyncio.run(host.renewal.renew())
        keys.add(host.pair().key)
    assert len(keys) == 4


def test_a_failure_is_tried_again_with_the_same_key_ever_more_slowly_and_never_too_late(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path)
    before = host.pair()
    host.fails = lambda: LinkBroken("unavailable", "nobody there") if host.elapsed < 29 * DAY else None
    waiting = set()
    real = host.ask

    async def noting(request: bytes) -> bytes:
        waiting.add(host.store.waiting_key.read_bytes())
        assert host.pair() == before or host.elapsed > 29 * DAY
        return await real(request)

    host.renewal = Renewal(store=host.store, ask=noting, clock=host, now=host.now, metrics=host.metrics)
    host.until = 29.5 * DAY
    host.keep()
    tries = [at for at in host.asked_at if at < 29 * DAY]
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert len(waiting) == 1
    assert gaps[0] < 10
    assert max(gaps) <= HOUR
    assert gaps[:5] == sorted(gaps[:5])
    assert host.count("failed") == len(tries)
    assert host.pair() != before
    assert host.pair().matches()


def test_near_the_end_it_is_tried_more_often(tmp_path: Path) -> None:
    host = Host(tmp_path, until=30 * DAY)
    host.fails = lambda: LinkBroken("unavailable", "")
    host.keep()
    last_hour = [at for at in host.asked_at if at > 30 * DAY - HOUR]
    assert len(last_hour) > 10


@pytest.mark.parametrize("wrong", ["another name", "another key", "another authority", "junk"])
def test_an_answer_that_is_not_what_was_asked_for_changes_nothing(tmp_path: Path, wrong: str) -> None:
    host = Host(tmp_path, until=21 * DAY)
    before = host.pair()
    other = create_authority("f", days=10, now=START)
    answers = {
        "another name": lambda key: host.sign(key, Subject("f", Role.WORKER, "other")).certificate,
        "another key": lambda _: host.sign(new_key().public_key()).certificate,
        "another authority": lambda key: issue(other, WORKER, days=1, now=START, public_key=key).certificate,
        "junk": lambda _: b"junk",
    }

    async def ask(request: bytes) -> bytes:
        return answers[wrong](requested_key(request))

    host.renewal = Renewal(store=host.store, ask=ask, clock=host, now=host.now, metrics=host.metrics)
    host.keep()
    assert host.count("failed") > 0
    assert host.pair() == before
