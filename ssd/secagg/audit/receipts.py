"""A worker's receipts against the transcripts: what it signed is what the coordinator says it opened, and nothing else.

Transcripts are the coordinator's side: a round that it opened and kept no transcript of is not in them. A worker's
receipts are the other side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssd.secagg.audit.audit import Audited, AuditFailed, hold

MAX_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedSet:
    """One receipt, as far as it can be compared."""

    round_id: str
    """Hex."""
    model_digest: str
    """Hex."""
    round: int
    attempt: int
    signed: tuple[str, ...]
    """Empty: the worker answered no survivor set of that attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerReceipts:
    """All of one worker."""

    worker: str
    receipts: tuple[SignedSet, ...]


def read_receipts(content: bytes) -> WorkerReceipts:
    """What `ssd-worker receipts --format json` printed.

    Raises:
        AuditFailed: it is something else.
    """
    hold(len(content) <= MAX_BYTES, f"receipts of {len(content)} bytes; at most {MAX_BYTES} are read")
    try:
        value: Any = json.loads(content)
        return WorkerReceipts(
            worker=_text(value["worker"]),
            receipts=tuple(
                SignedSet(
                    round_id=_text(each["round_id"]),
                    model_digest=_text(each["model_digest"]),
                    round=int(each["round"]),
                    attempt=int(each["attempt"]),
                    signed=tuple(map(_text, each["signed"])),
                )
                for each in value["receipts"]
            ),
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise AuditFailed(f"these are no receipts of a worker: {str(error)[:200]}") from None


def check_receipts(rounds: Sequence[Audited], of: WorkerReceipts) -> None:
    """Whether the worker's receipts and the transcripts tell the same.

    Raises:
        AuditFailed: a sum was opened with the worker that it has no receipt of, over another set than it signed, or over
            a model for which it signed a set of another attempt.
    """
    by_id = {each.round_id: each for each in of.receipts}
    for opened in rounds:
        offer = opened.offer
        own = by_id.get(offer.round_id.hex())
        where = f"round {offer.round}, attempt {offer.attempt}"
        hold(
            own is not None or of.worker not in opened.survivors,
            f"{where}: {of.worker} is in the sum and has no receipt of it",
        )
        hold(
            own is None or own.model_digest == offer.model_digest.hex(),
            f"{where}: {of.worker} trained from another model",
        )
        hold(
            own is None or own.signed in ((), opened.survivors),
            f"{where}: {of.worker} signed another set than was opened",
        )
        for other in of.receipts:
            hold(
                other.round_id == offer.round_id.hex()
                or other.model_digest != offer.model_digest.hex()
                or not other.signed,
                f"{where}: {of.worker} signed a set for a sum over the same model in attempt {other.attempt}",
            )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value
