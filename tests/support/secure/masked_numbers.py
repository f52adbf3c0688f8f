"""Sample masked vectors: plans, the clients' updates, the masks of a round and what a sum opens to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rounds.fold_samples import SampleUpdate, sample_plan, sample_update
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masked_sum import MaskedSum
from ssd.secagg.numbers.masking import MaskKey
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer
from ssd.updates.fold_plan import FoldPlan, OpenedFold
from ssd.updates.spec import Kind, ParameterSpec

RINGS = (16, 24, 32)


FOLD_PLAN = sample_plan()


UPDATES = [sample_update(FOLD_PLAN, seed) for seed in range(9)]


def key_of(*labels: object) -> bytes:
    return hashlib.sha256(repr(labels).encode()).digest()


def masked_plan(
    bits: int = 24, *, plan: FoldPlan = FOLD_PLAN, cohort: int = 40, weight: int = 100
) -> MaskedPlan:
    return MaskedPlan.create(
        plan, MaskedSettings(ring_bits=bits, clip=2.0, max_client_weight=weight, max_cohort=cohort)
    )


def masks_of(participant: int, participants: int) -> list[MaskKey]:
    """As in the protocol: the own mask, and one with every other participant that cancels."""
    pairs = [
        MaskKey(key_of("pair", *sorted((participant, other))), 1 if participant < other else -1)
        for other in range(participants)
        if other != participant
    ]
    return [MaskKey(key_of("self", participant), 1), *pairs]


def own_masks(participants: Sequence[int]) -> list[MaskKey]:
    return [MaskKey(key_of("self", participant), 1) for participant in participants]


def fold_clients(
    plan: MaskedPlan, clients: Sequence[int], updates: Sequence[SampleUpdate] = UPDATES
) -> MaskedFold:
    fold = MaskedFold(plan)
    for client in clients:
        fold.add_client(updates[client].body, updates[client].weight, key_of("rounding", client))
    return fold


def upload(plan: MaskedPlan, participant: int, participants: int, clients: Sequence[int]) -> bytes:
    fold = fold_clients(plan, clients)
    fold.add_masks(masks_of(participant, participants))
    return b"".join(fold.pack_chunks())


def small_plan(size: int, cohort: int, weight: int, **group: object) -> FoldPlan:
    spec = ParameterSpec.build([("w", (size,), "g", Kind.PARAMETER)])
    declared = {"reducer": Reducer.WEIGHTED_MEAN, "max_abs": 8.0, "norm_bound": 1e9} | group
    declaration = Declaration(
        method="small", version=1, spec=spec, groups=(GroupDeclaration(name="g", **declared),)
    )
    return FoldPlan.create(declaration, Encoding.FLOAT32, cohort, weight)


def opened_alone(plan: MaskedPlan, fold: MaskedFold) -> OpenedFold:
    fold.add_masks(own_masks([0]))
    total = MaskedSum(plan)
    total.add(b"".join(fold.pack_chunks()))
    total.subtract(own_masks([0]))
    return total.open(1)


def opened(
    plan: MaskedPlan, bodies: Sequence[bytes], keys: Sequence[MaskKey], participants: int
) -> OpenedFold:
    total = MaskedSum(plan)
    for body in bodies:
        total.add(body)
    total.subtract(keys)
    return total.open(participants)


def same(a: OpenedFold, b: OpenedFold) -> bool:
    return (
        a.delta.tobytes() == b.delta.tobytes()
        and (a.clients, a.weight) == (b.clients, b.weight)
        and all(a.statistics[name].tobytes() == b.statistics[name].tobytes() for name in a.statistics)
        and set(a.statistics) == set(b.statistics)
    )
