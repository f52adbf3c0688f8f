"""The next certificate before the present one ends, while everything goes on.

When two thirds of its life have passed a new key is made, the coordinator is asked to sign for it over the connection
the present certificate opens, and both are put in place together. Connections that stand are not touched; the next
ones use the new certificate.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ssd.daemon.logs import event as log_event
from ssd.trust.authority import CLOCK_SKEW, CertificateRefused, subject_of_certificate, validity
from ssd.trust.identity_store import IdentityStore
from ssd.trust.requests import check_issued, make_request
from worker.core.backoff import Backoff
from worker.errors import LinkBroken
from worker.ports import Clock
from worker.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

RENEW_AT = 2 / 3
"""Share of a certificate's life after which it is renewed."""
SPREAD = 0.05
"""Share of its life over which hosts that enrolled together spread their renewals."""
LONGEST_SLEEP_SECONDS = 600.0
"""Between looks at the wall clock, which may be put right or the machine put to sleep meanwhile."""
BACKOFF = Backoff(first=5.0, cap=3600.0)

Ask = Callable[[bytes], Awaitable[bytes]]
"""`Renewal.Renew`: a DER request for a PEM certificate; raises `LinkBroken`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """Keeps one identity valid.

    Args:
        store: where it lies.
        ask: makes the call.
        clock: for waiting, and chance.
        now: aware time.
        metrics: told when the certificate ends and of every try.
    """

    store: IdentityStore
    ask: Ask
    clock: Clock
    now: Callable[[], dt.datetime]
    metrics: Metrics

    async def keep(self) -> None:
        """For ever."""
        failures = 0
        chance = self.clock.uniform()
        while True:
            due, end = self._dates(chance)
            self.metrics.certificate_end.set(end.timestamp())
            wait = (due - self.now()).total_seconds()
            if wait > 0:
                await self.clock.sleep(min(wait, LONGEST_SLEEP_SECONDS))
                continue
            try:
                await self.renew()
            except (LinkBroken, CertificateRefused, OSError) as error:
                failures += 1
                self._failed(error, end)
                await self.clock.sleep(self._pause(failures, end))
            else:
                failures, chance = 0, self.clock.uniform()

    async def renew(self) -> None:
        """Once, now.

        Raises:
            LinkBroken: the coordinator did not answer, or refused.
            CertificateRefused: it answered something else.
            OSError: the folder cannot be written.
        """
        authority = self.store.authority.read_bytes()
        subject = subject_of_certificate(self.store.certificate.read_bytes())
        key = self.store.key_to_be()
        certificate = await self.ask(make_request(key))
        check_issued(certificate, authority, subject, key.public_key())
        self.store.install(certificate)
        self.metrics.renewals.labels("renewed").inc()
        log_event(
            _log, logging.INFO, "certificate_renewed", until=f"{validity(certificate)[1]:%Y-%m-%d %H:%M} UTC"
        )

    def _dates(self, chance: float) -> tuple[dt.datetime, dt.datetime]:
        """When to renew, and when it is too late."""
        start, end = validity(self.store.certificate.read_bytes())
        life = end - (start + CLOCK_SKEW)
        return start + CLOCK_SKEW + life * (RENEW_AT - SPREAD * chance), end

    def _pause(self, failures: int, end: dt.datetime) -> float:
        """Never so long that there would be no further tries before the end."""
        left = (end - self.now()).total_seconds()
        pause = BACKOFF.seconds(failures, 0.5 + self.clock.uniform() / 2)
        return min(pause, max(1.0, left / 10))

    def _failed(self, error: Exception, end: dt.datetime) -> None:
        self.metrics.renewals.labels("failed").inc()
        advice = (
            "" if self.now() < end else "; it has expired: enrol again with a new token (`ssd-worker enroll`)"
        )
        log_event(
            _log,
            logging.WARNING,
            "certificate_not_renewed",
            detail=f"{error}{advice}",
            ends=f"{end:%Y-%m-%d %H:%M} UTC",
        )
