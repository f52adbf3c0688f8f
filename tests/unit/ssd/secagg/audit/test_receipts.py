"""A worker's receipts against transcripts: a sum that the worker knows nothing of, or knows otherwise, is found."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from secure.secure_rounds import Federation, names_of, offer_for, registry
from ssd.secagg.audit import transcript
from ssd.secagg.audit.audit import Audited, AuditFailed, audit
from ssd.secagg.audit.receipts import SignedSet, WorkerReceipts, check_receipts, read_receipts
from ssd.secagg.client.receipts import to_json

NAMES = names_of(5)


@cache
def opened() -> tuple[Audited, bytes]:
    """A round, and what its first worker's command prints."""
    f = Federation(offer=offer_for(5), names=NAMES)
    f.until_uploaded()
    f.survive(NAMES)
    f.reveal(NAMES)
    f.open()
    f.aggregator.finish(bytes(32), bytes(32))
    found = audit(transcript.write(f.aggregator.transcript), registry(NAMES))
    return found, json.dumps(to_json(NAMES[0], f.memories[NAMES[0]].receipts.values())).encode()


def own() -> WorkerReceipts:
    return read_receipts(opened()[1])


def with_receipts(*receipts: SignedSet) -> WorkerReceipts:
    return WorkerReceipts(worker=NAMES[0], receipts=receipts)


def refused(of: WorkerReceipts, match: str) -> None:
    with pytest.raises(AuditFailed, match=match):
        check_receipts([opened()[0]], of)


def test_what_was_signed_is_what_was_opened() -> None:
    check_receipts([opened()[0]], own())
    (receipt,) = own().receipts
    assert receipt.signed == NAMES


def test_a_worker_that_dropped_out_before_the_set_came_signed_nothing() -> None:
    (receipt,) = own().receipts
    check_receipts([opened()[0]], with_receipts(replace(receipt, signed=())))


def test_who_was_not_there_has_no_receipt() -> None:
    check_receipts([opened()[0]], WorkerReceipts(worker="elsewhere", receipts=()))


def test_a_sum_with_a_worker_that_knows_nothing_of_it() -> None:
    refused(with_receipts(), "has no receipt")


def test_another_set_than_was_opened() -> None:
    (receipt,) = own().receipts
    refused(with_receipts(replace(receipt, signed=NAMES[:4])), "another set")


def test_another_model() -> None:
    (receipt,) = own().receipts
    refused(with_receipts(replace(receipt, model_digest="00" * 32)), "another model")


def test_a_second_set_over_the_same_model() -> None:
    (receipt,) = own().receipts
    second = replace(receipt, round_id="ab" * 16, attempt=2)
    refused(with_receipts(receipt, second), "attempt 2")
    check_receipts([opened()[0]], with_receipts(receipt, replace(second, signed=())))
    check_receipts([opened()[0]], with_receipts(receipt, replace(second, model_digest="00" * 32)))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"worker": 1, "receipts": []}', b"[" * 100_000,
                                     b'{"worker": "w", "receipts": [{"round_id": 1}]}'])  # fmt: skip
def test_something_else(content: bytes) -> None:
    with pytest.raises(AuditFailed, match="no receipts"):
        read_receipts(content)


def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.secagg.audit.receipts.MAX_BYTES", 10)
    with pytest.raises(AuditFailed, match="at most 10"):
        read_receipts(opened()[1])
