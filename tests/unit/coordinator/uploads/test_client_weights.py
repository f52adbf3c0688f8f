"""What a client may weigh beside the others, and how much of a sum the heaviest one has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.errors import ClientFault, Reason
from coordinator.uploads.client_weights import LEAST_KNOWN, ClientWeights
from ssd_wire.uploads import Envelope, UploadKind, WeightedClient


def envelope(kind: UploadKind = UploadKind.UPDATE, **weights: int) -> Envelope:
    return Envelope(
        run_id="r",
        round=1,
        attempt=1,
        base_digest="",
        spec_digest="",
        task_digest="",
        kind=kind,
        clients=tuple(WeightedClient(client=name, weight=weight) for name, weight in weights.items()),
        body_size=1,
        chunk_digests=(),
    )


def claim(weights: ClientWeights, weight: int) -> None:
    weights.check((WeightedClient(client="fine", weight=1), WeightedClient(client="x", weight=weight)))


def after(ratio: float, **known: int) -> ClientWeights:
    weights = ClientWeights(ratio)
    weights.add(envelope(UploadKind.FOLD, **known))
    weights.committed(tuple(known))
    weights.begin()
    return weights


def test_who_claims_too_many_times_the_median_is_refused() -> None:
    weights = after(20.0, a=10, b=12, c=500)
    claim(weights, 240)
    with pytest.raises(ClientFault, match="more than 20 times the median client's") as fault:
        claim(weights, 241)
    assert fault.value.reason is Reason.WEIGHT_OUT_OF_RANGE


def test_liars_move_the_bound_only_where_they_are_the_majority() -> None:
    weights = after(2.0, a=10, b=10, c=65536)
    with pytest.raises(ClientFault):
        claim(weights, 21)
    weights = after(2.0, a=10, c=65536, d=65536)
    claim(weights, 65536)


def test_nobody_is_too_heavy_before_enough_are_known_or_without_a_ratio() -> None:
    claim(ClientWeights(1.0), 65536)
    claim(after(1.0, a=1, b=1), 65536)
    claim(after(0.0, a=1, b=1, c=1), 65536)
    assert LEAST_KNOWN == 3


def test_what_does_not_commit_is_not_remembered() -> None:
    weights = after(2.0, a=10, b=10, c=10)
    weights.add(envelope(UploadKind.FOLD, a=1000, b=1000, c=1000))
    weights.begin()
    weights.committed(("a", "b", "c"))
    with pytest.raises(ClientFault):
        claim(weights, 21)


def test_the_newest_commit_of_a_client_counts() -> None:
    weights = after(2.0, a=10, b=10, c=10)
    weights.add(envelope(UploadKind.FOLD, a=100, b=100))
    weights.committed(("a", "b"))
    claim(weights, 200)


@pytest.mark.parametrize(
    ("known", "share"),
    [
        ({"a": 1, "b": 1, "c": 2}, 0.5),
        ({"a": 1, "b": 1, "c": 14}, 0.875),
        ({"a": 1, "b": 9}, 0.0),
        ({"a": 1}, 0.0),
    ],
)
def test_the_share_of_the_heaviest(known: dict[str, int], share: float) -> None:
    weights = ClientWeights(20.0)
    for client, weight in known.items():
        weights.add(envelope(**{client: weight}))
    assert weights.committed(tuple(known)) == share


def test_a_share_is_not_told_of_weights_that_are_not_known() -> None:
    weights = ClientWeights(20.0)
    weights.add(replace(envelope(a=1, b=1, c=9), kind=UploadKind.MASKED))
    assert weights.committed(("a", "b", "c")) == 0.0
    weights.begin()
    weights.add(envelope(UploadKind.FOLD, a=1, b=1, c=9))
    assert weights.committed(("a", "b", "c", "d")) == 0.0
