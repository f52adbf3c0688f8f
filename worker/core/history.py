"""What a worker remembers of a run's past, and what a coordinator may not say after that. Pure.

A coordinator commits forwards only. One that offers, for the same run, an older version than a worker saw committed, or
another one under the same number, works on an old backup or on a forged journal: going on with it would silently undo
rounds, and would train clients from states that belong to another past.
"""

from __future__ import annotations

from ssd_wire.messages import ModelVersion

Name = tuple[int, str]
"""Number and model digest of a version; the digest is empty as long as none was seen."""


def contradiction(seen: Name, offered: ModelVersion) -> str:
    """What `offered` contradicts, as a sentence; empty if it may follow from what was seen."""
    number, digest = seen
    if not digest:
        return ""
    if offered.number < number:
        return (
            f"it offers version {offered.number} as its newest, but this worker saw version {number}"
            f" ({digest[:16]}) committed"
        )
    told = {step.number: step.model_digest for step in offered.deltas} | dict([offered.name])
    other = told.get(number, digest)
    if other != digest:
        return f"its version {number} is {other[:16]}, but this worker saw {digest[:16]} committed under that number"
    return ""
