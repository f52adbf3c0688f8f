"""The chain over a run's versions: each commit's value covers the one before it, so the past cannot be changed alone.

    value of version 0 = SHA-256("ssd-journal-v1" ‖ run record ‖ version record)
    value of version n = SHA-256(value of n−1 ‖ version record ‖ accepted set)

The version record holds the digests of model, delta, server state and round artefacts, so what the next commit stands
on is covered down to the last byte. No key is involved: the chain finds damage and careless repair, and a journal
whose rows are from two backups. Whoever can write the whole database can also make a new chain; workers, who remember
the newest version they saw, notice that (`worker.core.history`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from coordinator.errors import JournalTampered
from coordinator.ports.journal import Journal
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.store.journal.records import names_text, run_text, version_text

_DOMAIN = "ssd-journal-v1"
ADVICE = (
    "Restore the state directory from a backup, or start a new run in another state directory with run.warm_start set"
    " to an exported encoder."
)


def origin(run: RunRecord, initial: VersionRecord) -> str:
    """The chain's first value."""
    return _digest(_DOMAIN, run_text(run), version_text(initial))


def link(previous: str, version: VersionRecord, accepted: Sequence[str]) -> str:
    """The value after `previous`.

    Args:
        previous: hex, of the version before.
        version: what was committed.
        accepted: the journaled set it was made of, sorted.
    """
    return _digest(previous, version_text(version), names_text(tuple(accepted)))


def verify(journal: Journal) -> None:
    """Follow the current run's chain from its beginning; cheap beside reading one model.

    Raises:
        JournalTampered: names the first version that is not what was committed.
    """
    run, versions, values = journal.current_run(), journal.versions(), journal.chain()
    if run is None:
        return
    accepted = {
        (each.round, each.attempt): each.accepted
        for each in journal.attempts()
        if each.outcome == "committed"
    }
    if not versions or len(values) != len(versions):
        raise JournalTampered(f"the journal of run {run.run_id} has lost its versions. {ADVICE}")
    expected = origin(run, versions[0])
    for number, (version, value) in enumerate(zip(versions, values, strict=True)):
        if number:
            expected = link(expected, version, accepted.get((version.round, version.attempt), ()))
        if version.number != number or value != expected:
            raise JournalTampered(
                f"the journal of run {run.run_id} is not what was written: the record of version {number}, or of the"
                f" round that made it, was changed or lost since. {ADVICE}"
            )


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        # Lengths first, so that no two lists of parts have the same bytes.
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
