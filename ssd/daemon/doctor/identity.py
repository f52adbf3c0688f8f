"""Certificates and keys: there, readable, of the right role, valid, and for nobody else to read."""

from __future__ import annotations

import contextlib
import datetime as dt
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd.daemon.doctor.findings import Finding, fault, ok, warning
from ssd.trust.authority import CertificateRefused, validity
from ssd.trust.identity_files import IdentityFiles, IdentityMissing, read_identity
from ssd.trust.names import Role, Subject

SOON = dt.timedelta(days=7)
"""A certificate that ends within this time is worth a word, unless its whole life is not much longer."""
_RENEWED_AT = 2 / 3
"""Share of its life after which a worker renews its certificate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityFacts:
    """What the files are."""

    certificate: Path
    key: Path
    key_mode: int | None
    """Permission bits; None: there is no such file."""
    problem: str = ""
    """Why they cannot be used together, now; empty: they can."""
    missing: bool = False
    subject: Subject | None = None
    not_before: dt.datetime | None = None
    """Of one's own certificate, aware; None: there is no certificate that can be read."""
    not_after: dt.datetime | None = None
    """When the first of the two certificates ends; of an unusable identity, its own."""


def gather_identity(files: IdentityFiles, now: dt.datetime) -> IdentityFacts:
    """Reads the files.

    Args:
        files: where.
        now: aware time.
    """
    try:
        mode: int | None = stat.S_IMODE(files.key.stat().st_mode)
    except OSError:
        mode = None
    span: tuple[dt.datetime | None, dt.datetime | None] = (None, None)
    # (What is wrong with it, `read_identity` says better.)
    with contextlib.suppress(OSError, CertificateRefused):
        span = validity(files.certificate.read_bytes())
    try:
        identity = read_identity(files, now)
    except CertificateRefused as error:
        return IdentityFacts(
            certificate=files.certificate, key=files.key, key_mode=mode, problem=str(error),
            missing=isinstance(error, IdentityMissing), not_before=span[0], not_after=span[1],
        )  # fmt: skip
    return IdentityFacts(
        certificate=files.certificate, key=files.key, key_mode=mode, subject=identity.subject,
        not_before=span[0], not_after=identity.not_after,
    )  # fmt: skip


def judge_identity(
    facts: IdentityFacts, roles: frozenset[Role], now: dt.datetime, get_one: str
) -> Iterator[Finding]:
    """Findings `tls` and `clock`.

    Args:
        facts: of the files.
        roles: which of them the certificate may be for.
        now: aware time.
        get_one: how to get a certificate, as advice.
    """
    if facts.problem:
        yield fault("tls", facts.problem, get_one)
    elif facts.subject is not None and facts.not_after is not None:
        yield from _usable(facts.subject, facts.not_after, facts, roles, now, get_one)
    if facts.key_mode is not None and facts.key_mode & 0o077:
        who = "everybody" if facts.key_mode & 0o007 else "its group"
        yield fault(
            "tls", f"{facts.key} is open to {who} (mode {facts.key_mode:04o})", f"chmod 600 {facts.key}"
        )
    yield from _clock(facts, now)


def _usable(
    subject: Subject,
    end: dt.datetime,
    facts: IdentityFacts,
    roles: frozenset[Role],
    now: dt.datetime,
    get_one: str,
) -> Iterator[Finding]:
    if subject.role not in roles:
        wanted = " or ".join(sorted(role.value for role in roles))
        yield fault(
            "tls", f"{facts.certificate} is the certificate of the {subject.role.value} {subject.name}, not of a {wanted}",
            get_one,
        )  # fmt: skip
        return
    said = f"{subject.role.value} {subject.name} of {subject.federation}, until {end:%Y-%m-%d %H:%M} UTC"
    life = end - (facts.not_before or now)
    # Short-lived certificates are renewed by themselves: only one that should have been by now is suspicious.
    if end - now < SOON and end - now < life * (1 - _RENEWED_AT) / 2:
        yield warning("tls", said, f"it ends soon: {get_one}")
    else:
        yield ok("tls", said)


def _clock(facts: IdentityFacts, now: dt.datetime) -> Iterator[Finding]:
    """A certificate's dates are the only clock of another host that is at hand without asking anybody."""
    if facts.not_before is None or facts.not_after is None:
        return
    if now < facts.not_before:
        behind = facts.not_before - now
        yield fault(
            "clock", f"this host says {now:%Y-%m-%d %H:%M} UTC, {_span(behind)} before its own certificate was made",
            "set the clock; timedatectl set-ntp true keeps it right",
        )  # fmt: skip
    elif now < facts.not_after:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M} UTC is within the certificate's dates")
    else:
        yield warning(
            "clock", f"this host says {now:%Y-%m-%d %H:%M} UTC, {_span(now - facts.not_after)} after its certificate's end",
            "if the certificate should still be valid, set the clock",
        )  # fmt: skip


def _span(time: dt.timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.1f} hours"
