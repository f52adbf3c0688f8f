"""How a version came to be: what an exported file says of it beside the tensors. Read from the journal, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.ports.journal import Journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Of one version."""

    parent_digest: str
    """Model digest of the version before; empty for version 0."""
    mode: str
    rounds: int
    """The run is to have."""
    registered_clients: int
    included_clients: int
    """Different clients whose updates are in at least one round up to this version."""
    total_weight: int
    """Sum over those rounds of the clients' aggregation weights."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """Of the round that made the version."""
    evaluation: Mapping[str, float] = field(default_factory=dict)
    """What was measured on the version; empty: nothing."""
    secure_aggregation: str = "off"
    privacy: str = ""
    """What differential privacy costs up to the version, or why nothing can be said; empty: it is off."""


def provenance(
    journal: Journal,
    number: int,
    *,
    mode: str,
    rounds: int,
    registered_clients: int,
    secure_aggregation: str,
    privacy: str,
) -> Provenance:
    """The journal's account of version `number`, which must exist; the rest is taken over as it is."""
    versions = {version.number: version for version in journal.versions() if version.number <= number}
    included = {
        client
        for attempt in journal.attempts()
        if attempt.outcome == "committed" and attempt.round <= number
        for client in attempt.accepted
    }
    measured = dict(journal.evaluations()).get(number, {})
    before = versions.get(number - 1)
    return Provenance(
        parent_digest="" if before is None else before.model_digest,
        mode=mode,
        rounds=rounds,
        registered_clients=registered_clients,
        included_clients=len(included),
        total_weight=sum(cost.weight for each in versions.values() if (cost := each.figures.cost)),
        statistics=versions[number].figures.statistics,
        evaluation=measured,
        secure_aggregation=secure_aggregation,
        privacy=privacy,
    )
