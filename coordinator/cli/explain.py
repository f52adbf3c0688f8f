"""What happened to every client a round invited, out of what the journal has of it. Plain records in, text out."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.cli import tables
from coordinator.ports.records import AttemptRecord
from coordinator.store.journal.reading import RoundRecords
from coordinator.telemetry.client_history import ACCEPTED, ASKED, AWAY, DISCARDED, FAILED, REJECTED, REVOKED

Json = Any
INCLUDED, LATE, NO_ANSWER, NOT_ASKED, UNDER_WAY = (
    "included",
    "late",
    "no answer",
    "not connected",
    "under way",
)
_LATE_REASONS = frozenset({"too_late", "stale_attempt", "wrong_round"})
_COLOURS = {INCLUDED: "green", FAILED: "red", REJECTED: "red", LATE: "yellow", AWAY: "yellow", REVOKED: "red"}


def explain(number: int, found: RoundRecords) -> dict[str, Json]:
    """A round as a JSON object: its attempts, oldest first, and in each what became of every client of its cohort.

    A client's `fate` is one of: included; failed, rejected, late, away, revoked, with the reason last heard; no answer
    (asked, and nothing came before the attempt ended); not connected (never asked); under way; unknown (an attempt of
    which the store keeps no notes any more).
    """
    return {
        "round": number,
        "committed": bool(found.model_digest),
        "model_digest": found.model_digest or None,
        "attempts": [
            {
                "attempt": attempt.attempt,
                "outcome": attempt.outcome,
                "reason": attempt.reason or None,
                "opened_at": attempt.opened_at,
                "closed_at": attempt.closed_at,
                "clients": [
                    _client(client, attempt, notes.get(client), bool(notes), found.bindings.get(client))
                    for client in sorted(attempt.cohort)
                ],
            }
            for attempt, notes in found.attempts
        ],
    }


def _client(
    client: str, attempt: AttemptRecord, told: Mapping[str, Json] | None, noted: bool, owner: str | None
) -> dict[str, Json]:
    notes = [] if told is None else told["notes"]
    asked = [each for each in notes if each[1] == ASKED]
    uploads = [each for each in notes if each[1] in (ACCEPTED, REJECTED, DISCARDED)]
    failures = [each for each in notes if each[1] == FAILED]
    accepted = next((each[0] for each in uploads if each[1] == ACCEPTED), None)
    fate, reason = _fate(client, attempt, notes, noted)
    workers = [each[3] for each in notes if each[3]]
    return {
        "client": client,
        "worker": workers[-1] if workers else owner,
        "fate": fate,
        "reason": reason or None,
        "asked": len(asked),
        "failures": len(failures),
        "uploads_refused": len([each for each in uploads if each[1] != ACCEPTED]),
        "asked_at": asked[0][0] if asked else None,
        "accepted_at": accepted,
        "notes": [
            {"at": at, "what": what, "reason": why or None, "worker": worker or None}
            for at, what, why, worker in notes
        ],
        "notes_left_out": 0 if told is None else told["dropped"],
    }


def _fate(client: str, attempt: AttemptRecord, notes: Sequence[Json], noted: bool) -> tuple[str, str]:
    if client in attempt.accepted:
        return INCLUDED, ""
    # An update that was taken and came to nothing with its attempt was, for the client, not in vain: a retry on the
    # same version takes it again.
    heard = [each for each in notes if each[1] != ASKED]
    if any(each[1] == REVOKED for each in heard):
        return REVOKED, ""
    if heard:
        _, what, reason, _ = heard[-1]
        if what == ACCEPTED:
            return ACCEPTED, "" if attempt.outcome == "open" else f"the attempt was {attempt.outcome}"
        if what == DISCARDED or reason in _LATE_REASONS:
            return (LATE if reason in _LATE_REASONS else DISCARDED), reason
        return what, reason
    if attempt.outcome in ("open", "closed"):
        return UNDER_WAY, ""
    if not noted:
        return "unknown", ""
    return (NO_ANSWER, "") if notes else (NOT_ASKED, "")


def text(told: Mapping[str, Json]) -> str:
    """The same for people."""
    blocks = []
    for attempt in told["attempts"]:
        counts = Counter(each["fate"] for each in attempt["clients"])
        outcome = attempt["outcome"] + (f": {attempt['reason']}" if attempt["reason"] else "")
        head = f"round {told['round']}, attempt {attempt['attempt']}: {outcome}"
        lasted = (
            ""
            if attempt["closed_at"] is None
            else f" for {attempt['closed_at'] - attempt['opened_at']:.1f} s"
        )
        lines = [
            head,
            f"opened {_time(attempt['opened_at'])}{lasted}; {len(attempt['clients'])} invited: "
            + ", ".join(f"{count} {fate}" for fate, count in counts.most_common()),
        ]
        rows = [
            (
                each["client"],
                each["worker"] or "-",
                tables.coloured(each["fate"], _COLOURS.get(each["fate"])),
                each["asked"],
                each["failures"],
                each["uploads_refused"],
                _after(each["asked_at"], attempt["opened_at"]),
                _after(each["accepted_at"], attempt["opened_at"]),
                each["reason"] or "",
            )
            for each in attempt["clients"]
        ]
        heads = (
            "client",
            "worker",
            "fate",
            "asked",
            "failed",
            "refused",
            "asked after",
            "taken after",
            "reason",
        )
        blocks.append("\n".join([*lines, "", tables.table(heads, rows)]))
    return "\n\n".join(blocks)


def _time(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _after(at: float | None, opened: float) -> str:
    return "-" if at is None else f"{at - opened:.1f} s"
