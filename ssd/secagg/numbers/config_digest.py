"""What the meaning of a masked sum depends on, as one digest: both sides compute it, offers and keys are bound to it."""

from __future__ import annotations

import hashlib

LABEL = b"ssd-secagg-config-v1"


def config_digest(plan_digest: bytes, task_digest: str) -> bytes:
    """32 bytes: SHA-256 over a label, the masked plan's digest and the round's task digest.

    Args:
        plan_digest: `MaskedPlan.digest`, 32 bytes: layout, ring, clip, caps and noise.
        task_digest: hex SHA-256 of the task: run, round, base, declaration, seed, schedule values, artefacts.
    """
    return hashlib.sha256(LABEL + plan_digest + bytes.fromhex(task_digest)).digest()
