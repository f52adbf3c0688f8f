"""Masked vectors: what is opened is exactly what the clients were quantised to.

Should happen: any order, any grouping, any chunking, any ring opens to the same bits as adding up the quantised values
without masks; the parts that are exact in a plain round are exact here. Should not happen: a sum that wraps, an update
half added, bytes in the clear, two updates under one mask, a sum that opens although an upload is missing or twice.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rounds.fold_samples import SampleUpdate, fold_of, sample_declaration, sample_plan, sample_update
from ssd.digest import CHUNK_BYTES
from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.numbers import masked_plan as numbers
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masked_sum import MaskedSum, NotConsistent
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.numbers.mod_ring import FEWEST_LEVELS, ModRing, narrow_scale_bits, sum_limit
from ssd.secagg.numbers.prg import keystream
from ssd.secagg.numbers.rounding import RoundingStream
from ssd.updates.check import UpdateRefused
from ssd.updates.codec import Encoding, MalformedUpdate
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer, StatisticDeclaration
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import encode_update
from ssd.updates.fold_plan import FoldConfigError, FoldPlan, OpenedFold
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


@lru_cache
def quantised(bits: int, client: int) -> dict[str, NDArray[np.int64]]:
    """One client's integers for every narrow group, straight from the definition and in exact arithmetic."""
    plan, update = masked_plan(bits), UPDATES[client]
    weight = min(update.weight, plan.settings.max_client_weight)
    words = np.frombuffer(keystream(key_of("rounding", client), 0, 4 * plan.narrow_size), "<u4")
    found = {}
    for group in plan.groups:
        if not group.narrow:
            continue
        factor = Fraction(group.fold.weight_of(weight, 1)) * Fraction(2) ** group.scale_bits
        largest = factor * Fraction(group.max_abs)
        values = update.delta[group.fold.where]
        rounded = []
        for value, word in zip(values, words[group.at], strict=True):
            x = min(max(Fraction(float(value)) * factor, -largest), largest)
            # What float64 holds of the sum is what is rounded; the product of 24 and 7 bits is exact.
            rounded.append(min(math.floor(float(x) + float(word) * 2.0**-32), math.ceil(largest)))
        found[group.fold.name] = np.array(rounded, np.int64)
    return found


def expected_delta(plan: MaskedPlan, clients: Sequence[int]) -> NDArray[np.float32]:
    weight = sum(min(UPDATES[client].weight, plan.settings.max_client_weight) for client in clients)
    exact = fold_of(
        plan.fold, [replace(UPDATES[client], weight=capped(plan, client)) for client in clients]
    ).open()
    delta = exact.delta.copy()
    each = [quantised(plan.settings.ring_bits, client) for client in clients]
    for group in plan.groups:
        if group.narrow:
            total = sum(values[group.fold.name] for values in each)
            divisor = math.ldexp(group.fold.divisor(weight, len(clients)), group.scale_bits)
            delta[group.fold.where] = (total.astype(np.float64) / divisor).astype(np.float32)
    return delta


def capped(plan: MaskedPlan, client: int) -> int:
    return min(UPDATES[client].weight, plan.settings.max_client_weight)


def same(a: OpenedFold, b: OpenedFold) -> bool:
    return (
        a.delta.tobytes() == b.delta.tobytes()
        and (a.clients, a.weight) == (b.clients, b.weight)
        and all(a.statistics[name].tobytes() == b.statistics[name].tobytes() for name in a.statistics)
        and set(a.statistics) == set(b.statistics)
    )


@given(
    workers=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    order=st.permutations(range(9)),
    bits=st.sampled_from(RINGS),
    cut=st.integers(1, 5000),
)
@settings(max_examples=30, deadline=None)
def test_the_opened_sum_is_the_sum_of_the_quantised_vectors(
    workers: list[int], order: list[int], bits: int, cut: int
) -> None:
    plan = masked_plan(bits)
    hosted = {worker: [client for client in order if workers[client] == worker] for worker in set(workers)}
    names = sorted(hosted, key=order.index)
    bodies = [upload(plan, i, len(names), hosted[name]) for i, name in enumerate(names)]
    total = MaskedSum(plan)
    for i in sorted(range(len(bodies)), key=lambda i: order[i]):
        total.add([bodies[i][start : start + cut] for start in range(0, plan.nbytes, cut)])
    total.subtract(own_masks(range(len(names))))
    opened = total.open(len(names))
    plain = fold_of(
        FOLD_PLAN, [replace(UPDATES[client], weight=capped(plan, client)) for client in range(9)]
    ).open()
    assert opened.delta.tobytes() == expected_delta(plan, range(9)).tobytes()
    assert (opened.clients, opened.weight) == (9, plain.weight)
    buffers = plan.groups[-1].fold.where
    assert opened.delta[buffers].tobytes() == plain.delta[buffers].tobytes()
    for name, values in plain.statistics.items():
        assert opened.statistics[name].tobytes() == values.tobytes()


@given(st.sampled_from(RINGS), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_decoded_mean_is_within_the_bound_of_rounding(
    bits: int, size: int, cohort: int, seed: int
) -> None:
    """Every client's rounding moves the sum by less than one step, so the mean moves by less than n * 2**-s / W."""
    generator = np.random.default_rng(seed)
    plan = masked_plan(bits, plan=small_plan(size, cohort, 100), cohort=cohort)
    group = plan.groups[0]
    deltas = generator.uniform(-2, 2, (cohort, size)).astype(np.float32)
    weights = generator.integers(1, 101, cohort)
    fold = MaskedFold(plan)
    for client in range(cohort):
        fold.add_client(
            encode_update(plan.fold, deltas[client], {}), int(weights[client]), key_of(seed, client)
        )
    opened = opened_alone(plan, fold)
    mean = (weights[:, None] * deltas.astype(np.float64)).sum(axis=0) / weights.sum()
    bound = cohort * 2.0**-group.scale_bits / weights.sum()
    assert np.abs(opened.delta - mean).max() <= bound * (1 + 1e-6) + 2**-23 * 2


def test_rounding_has_no_bias() -> None:
    """The mean over many keys of one value is the value: 4,000 draws of deviation <= 1/2, within six deviations."""
    ring = ModRing(16, 1.0, RoundingStream(key_of("bias")))
    for x in (0.25, -0.25, 3.7, -3.7, 0.999, 12.0):
        values = np.full(4000, x / 16, np.float32)
        drawn = ring.signed(ring.quantise(values, 1, 4))
        assert abs(drawn.mean() - float(values[0]) * 16) < 6 * 0.5 / math.sqrt(4000)
        assert set(drawn.tolist()) <= {math.floor(x), math.ceil(x)}


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


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("size", [1, 7, 4099])
@pytest.mark.parametrize("cohort", [1, 2, 31])
@pytest.mark.parametrize("value", [2.0, -2.0, 0.0, 8.0, -8.0])
def test_extremes_of_a_full_cohort_do_not_wrap(bits: int, size: int, cohort: int, value: float) -> None:
    """Everyone at the cap of weight and at (or beyond) the clip: the largest sum there can be."""
    plan = masked_plan(bits, plan=small_plan(size, cohort, 37), cohort=cohort, weight=37)
    body = encode_update(plan.fold, np.full(size, value, np.float32), {})
    fold = MaskedFold(plan)
    for client in range(cohort):
        fold.add_client(body, 37, key_of(client))
    opened = opened_alone(plan, fold)
    assert opened.weight == cohort * 37
    step = 2.0 ** -plan.groups[0].scale_bits / 37
    assert np.abs(opened.delta - np.clip(value, -2, 2)).max() <= step
    with pytest.raises(OverflowRisk):
        fold_clients_over(plan, body, cohort)


def fold_clients_over(plan: MaskedPlan, body: bytearray, cohort: int) -> None:
    fold = MaskedFold(plan)
    for client in range(cohort + 1):
        fold.add_client(body, 37, key_of(client))


@given(
    bits=st.sampled_from(RINGS),
    clip=st.floats(1e-6, 1e6),
    cohort=st.integers(1, 2000),
    weight=st.integers(1, 5000),
)
@settings(max_examples=200, deadline=None)
def test_headroom_is_proven_or_refused(bits: int, clip: float, cohort: int, weight: int) -> None:
    total, top = cohort * weight, 2 ** (bits - 1) - 1
    try:
        s = narrow_scale_bits(bits, clip, total, cohort, weight)
    except OverflowRisk:
        # The largest scale that gives seven levels would already wrap, or is just not allowed by a factor of two.
        smallest = Fraction(FEWEST_LEVELS) / (Fraction(weight) * Fraction(clip))
        assert 2 * smallest * total * Fraction(clip) + cohort > top
        return
    unit = Fraction(clip) * Fraction(2) ** s
    assert total * unit + cohort <= top < total * 2 * unit + cohort
    # The largest sum: every client's largest addend is the next integer.
    assert cohort * math.ceil(weight * unit) <= sum_limit(total, clip, s, cohort) <= top
    assert weight * unit >= FEWEST_LEVELS


def test_a_ring_without_room_is_refused_by_the_name_of_the_group() -> None:
    plan = sample_plan()
    with pytest.raises(OverflowRisk, match="encoder.*16 bits"):
        MaskedPlan.create(
            FoldPlan.create(plan.declaration, Encoding.FLOAT32, 30_000, 1000),
            MaskedSettings(ring_bits=16, max_cohort=30_000, max_client_weight=1000),
        )


def test_secagg_md_s_table_of_value_bits_holds() -> None:
    """b value bits (with sign) for n clients of equal weight: at least those of the table, less the slack of n."""
    table = {16: {10: 12, 100: 9, 1000: 6}, 24: {10: 20, 100: 17, 1000: 14}, 32: {10: 28, 100: 25, 1000: 22}}
    for bits, by_cohort in table.items():
        for cohort, b in by_cohort.items():
            s = narrow_scale_bits(bits, 1.0, cohort, cohort, 1)
            assert b - 2 <= s <= b - 1


def test_weights_above_the_cap_count_as_the_cap() -> None:
    plan = masked_plan(weight=10)
    heavy, capped_ = MaskedFold(plan), MaskedFold(plan)
    heavy.add_client(UPDATES[0].body, 10_000, key_of(0))
    capped_.add_client(UPDATES[0].body, 10, key_of(0))
    assert same(opened_alone(plan, heavy), opened_alone(plan, capped_))


def test_values_beyond_the_clip_are_clipped() -> None:
    plan = masked_plan(plan=small_plan(3, 4, 100), cohort=4)
    fold = MaskedFold(plan)
    fold.add_client(encode_update(plan.fold, np.float32([7.5, -7.5, 1.0]), {}), 100, key_of(0))
    assert np.allclose(opened_alone(plan, fold).delta, [2.0, -2.0, 1.0], atol=1e-3)


@pytest.mark.parametrize("bits", RINGS)
def test_quantising_again_gives_the_same_bytes(bits: int) -> None:
    plan = masked_plan(bits)
    assert upload(plan, 0, 3, [0, 1, 2]) == upload(plan, 0, 3, [0, 1, 2])
    assert upload(plan, 0, 3, [0, 1, 2]) == upload(plan, 0, 3, [2, 0, 1])


def test_masks_may_come_before_the_clients() -> None:
    plan = masked_plan()
    fold = MaskedFold(plan)
    fold.add_masks(masks_of(0, 3), threads=2)
    for client in (0, 1):
        fold.add_client(UPDATES[client].body, UPDATES[client].weight, key_of("rounding", client))
    assert b"".join(fold.pack_chunks()) == upload(plan, 0, 3, [0, 1])


def test_the_chunks_of_a_large_vector() -> None:
    size = 900_001
    plan = masked_plan(plan=small_plan(size, 2, 1), cohort=2, weight=1)
    delta = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
    fold = MaskedFold(plan)
    fold.add_client(encode_update(plan.fold, delta, {}), 1, key_of(0))
    fold.add_masks(own_masks([0]), threads=3)
    chunks = list(fold.pack_chunks())
    assert sum(map(len, chunks)) == plan.nbytes == 3 * size + 8 * numbers.HEADER_VALUES
    assert [len(chunk) for chunk in chunks[:-1]] == [CHUNK_BYTES] * (len(chunks) - 1)
    assert list(fold.pack_chunks(first=1)) == chunks[1:]
    total = MaskedSum(plan)
    total.add(chunks)
    total.subtract(own_masks([0]), threads=2)
    assert np.abs(total.open(1).delta - delta).max() <= 2.0 ** -plan.groups[0].scale_bits


FROZEN_UPLOADS = {16: "5c6546ea6ed65c56", 24: "7a57b8ee8cb74153", 32: "12d3f5fb56e6fc44"}
FROZEN_PLANS = {16: "9bfd8e2c11042a00", 24: "84d6565bcbcf8416", 32: "30ea7bf011d852cf"}


def test_the_wire_form_is_frozen() -> None:
    """Layout, byte order, packing, rounding and masks at once."""
    digests = {
        bits: hashlib.sha256(upload(masked_plan(bits), 1, 3, [0, 1])).hexdigest()[:16] for bits in RINGS
    }
    assert digests == FROZEN_UPLOADS
    assert {bits: masked_plan(bits).digest.hex()[:16] for bits in RINGS} == FROZEN_PLANS


def test_lengths_are_known_beforehand() -> None:
    for bits in RINGS:
        plan = masked_plan(bits)
        assert plan.narrow_size == 707
        assert plan.wide_size == 3 + 7 + 10
        assert len(upload(plan, 0, 2, [0])) == plan.nbytes == 707 * bits // 8 + 8 * 20
        assert plan.words_nbytes == 2832 + 160
        assert plan.wide_start % 16 == 0


def test_the_masks_of_the_two_segments_do_not_overlap() -> None:
    """One stream covers both, so no part of it may be used twice."""
    plan = masked_plan(32)
    empty, stream = MaskedFold(plan), keystream(key_of("self", 0), 0, plan.words_nbytes)
    empty._wide[:] = 0
    empty.add_masks(own_masks([0]))
    assert empty._narrow.tobytes() == stream[: 4 * plan.narrow_size]
    assert empty._wide.tobytes() == stream[plan.wide_start :]
    assert plan.wide_start >= 4 * plan.narrow_size


def test_the_sum_s_digest_is_that_of_its_wire_form() -> None:
    plan = masked_plan()
    body = upload(plan, 0, 2, [0])
    total = MaskedSum(plan)
    total.add(body)
    assert total.packed_digest() == hashlib.sha256(body).digest()
    total.subtract(own_masks([0]))
    assert total.packed_digest() != hashlib.sha256(body).digest()


def meaning_changes() -> list[tuple[str, MaskedPlan]]:
    settings_: dict[str, Any] = {"ring_bits": 24, "clip": 2.0, "max_client_weight": 100, "max_cohort": 40}
    other = sample_declaration(max_abs=4.0)
    return [
        (name, MaskedPlan.create(sample_plan(declaration=declaration), MaskedSettings(**settings_ | change)))
        for name, change, declaration in (
            ("ring", {"ring_bits": 32}, None),
            ("clip", {"clip": 2.000001}, None),
            ("weight", {"max_client_weight": 99}, None),
            ("cohort", {"max_cohort": 39}, None),
            ("method", {}, other),
        )
    ]


@pytest.mark.parametrize(("name", "other"), meaning_changes())
def test_the_digest_depends_on_everything_the_numbers_mean(name: str, other: MaskedPlan) -> None:
    assert other.digest != masked_plan().digest
    assert len(other.digest) == 32


@pytest.mark.parametrize("change", [{"noise_multiplier": 1.1}, {"delta": 1e-6}, {"min_honest": 3}])
def test_the_digest_depends_on_the_terms_of_differential_privacy(change: dict[str, Any]) -> None:
    assert private_plan().digest != private_plan(**change).digest
    assert private_plan().digest == private_plan().digest


def test_the_digest_is_the_same_for_an_equal_plan() -> None:
    assert masked_plan(plan=sample_plan()).digest == masked_plan().digest


# --- differential privacy ---


PRIVATE = PrivacySettings(
    place=NoisePlace.DISTRIBUTED, clip_norm=1.5, noise_multiplier=1.0, delta=1e-5, min_honest=2
)


def private_fold(size: int = 3000, cohort: int = 12, clip_norm: float = 1.5) -> FoldPlan:
    spec = ParameterSpec.build(
        [("a", (size // 3,), "one", Kind.PARAMETER), ("b", (size - size // 3,), "two", Kind.PARAMETER)]
    )
    groups = (
        GroupDeclaration(name="one", reducer=Reducer.WEIGHTED_MEAN, max_abs=8.0, norm_bound=50.0),
        GroupDeclaration(name="two", reducer=Reducer.PLAIN_MEAN, max_abs=2.0, norm_bound=50.0),
    )
    statistics = (StatisticDeclaration(name="loss_sum"),)
    declaration = Declaration(method="private", version=1, spec=spec, groups=groups, statistics=statistics)
    return FoldPlan.create(declaration, Encoding.FLOAT32, cohort, 1, clip_norm=clip_norm)


def private_plan(bits: int = 32, size: int = 3000, cohort: int = 12, **change: Any) -> MaskedPlan:
    return MaskedPlan.create(
        private_fold(size, cohort),
        MaskedSettings(
            ring_bits=bits, clip=10.0, max_client_weight=1, max_cohort=cohort, dp=replace(PRIVATE, **change)
        ),
    )


def direction(size: int, client: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(client).standard_normal(size)
    return (drawn * 1.4 / np.linalg.norm(drawn)).astype(np.float32)


def private_fold_of(
    plan: MaskedPlan, clients: Sequence[int], participant: int, participants: int
) -> MaskedFold:
    fold = MaskedFold(plan)
    for client in clients:
        body = encode_update(plan.fold, direction(plan.fold.size, client), {})
        fold.add_client(body, 1, key_of("rounding", client))
    fold.add_masks(masks_of(participant, participants))
    return fold


def fresh(label: object) -> Callable[[int], bytes]:
    numbers_ = itertools.count()
    return lambda n: key_of(label, next(numbers_))[:n]


@pytest.mark.parametrize(("bits", "participants"), [(16, 2), (24, 2), (32, 4)])
def test_the_opened_mean_has_the_noise_of_all_participants(bits: int, participants: int) -> None:
    plan = private_plan(bits, size=900 if bits == 16 else 30_000)
    total, parts = MaskedSum(plan), np.array_split(np.arange(12), participants)
    for index, clients in enumerate(parts):
        fold = private_fold_of(plan, clients.tolist(), index, participants)
        fold.add_noise(fresh(("noise", index)))
        total.add(b"".join(fold.pack_chunks()))
    total.subtract(own_masks(range(participants)))
    opened = total.open(participants)
    exact = sum(direction(plan.fold.size, client).astype(np.float64) for client in range(12)) / 12
    noise = (opened.delta - exact) * 12 * 2.0 ** plan.groups[0].scale_bits
    assert plan.noise is not None
    # Two honest ones were to be enough; stochastic rounding of 12 values adds at most a quarter unit each.
    expected = plan.noise.variance * participants / 2 + 12 / 6
    assert abs(noise.var() / expected - 1) < 5 * math.sqrt(2 / noise.size) + 1e-3
    assert (opened.statistics, opened.weight, opened.clients) == ({}, 12, 12)


def test_a_vector_without_its_noise_is_not_sent() -> None:
    plan = private_plan()
    fold = private_fold_of(plan, [0], 0, 2)
    with pytest.raises(ValueError, match="without its noise"):
        fold.pack_chunks()
    fold.add_noise(fresh("once"))
    with pytest.raises(ValueError, match="once"):
        fold.add_noise(fresh("once"))
    with pytest.raises(ValueError, match="once"):
        MaskedFold(masked_plan()).add_noise(fresh("none"))


def test_noise_of_the_same_updates_is_never_the_same() -> None:
    plan = private_plan()
    bodies = set()
    for label in ("first", "second"):
        fold = private_fold_of(plan, [0], 0, 2)
        fold.add_noise(fresh(label))
        bodies.add(b"".join(fold.pack_chunks()))
    assert len(bodies) == 2


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("cohort", [4, 12, 40])
def test_the_largest_sum_and_its_noise_stay_within_the_ring(bits: int, cohort: int) -> None:
    plan = private_plan(bits, size=50, cohort=cohort)
    assert plan.noise is not None
    (scale,) = {group.scale_bits for group in plan.groups}
    assert plan.noise.scale_bits == scale
    largest = Fraction(cohort) * Fraction(3, 2) * Fraction(2) ** scale + plan.noise.headroom(cohort, 1e-9)
    assert largest < 2 ** (bits - 1)


def test_noise_that_leaves_no_scale_is_refused() -> None:
    private_plan(16, size=50, cohort=4)
    with pytest.raises(OverflowRisk, match="wider ring"):
        private_plan(16, size=1_000_000, cohort=40)
    with pytest.raises(OverflowRisk, match="smaller noise"):
        private_plan(24, noise_multiplier=1e6)


def test_noise_covers_clipped_updates_of_weight_one_only() -> None:
    settings_ = MaskedSettings(max_client_weight=1, max_cohort=12, dp=PRIVATE)
    with pytest.raises(FoldConfigError, match="buffers"):
        MaskedPlan.create(
            FoldPlan.create(sample_declaration(), Encoding.FLOAT32, 12, 1, clip_norm=1.5), settings_
        )
    for clip_norm in (1.0, 2.0):
        with pytest.raises(FoldConfigError, match="clipping"):
            MaskedPlan.create(private_fold(clip_norm=clip_norm), settings_)
    with pytest.raises(FoldConfigError, match="coordinator"):
        MaskedSettings(max_cohort=12, dp=replace(PRIVATE, place=NoisePlace.CENTRAL, min_honest=1))


def test_a_sum_beyond_updates_and_noise_is_none() -> None:
    plan = private_plan(24)
    fold = private_fold_of(plan, [0], 0, 1)
    fold.add_noise(fresh("one"))
    total = MaskedSum(plan)
    total.add(b"".join(fold.pack_chunks()))
    total.subtract(own_masks([0]))
    total._narrow[17] = 1 << 22
    with pytest.raises(NotConsistent, match="larger"):
        total.open(1)


# --- what must not happen ---


def honest_round(plan: MaskedPlan) -> tuple[list[bytes], list[MaskKey]]:
    return [upload(plan, i, 3, [i, i + 3]) for i in range(3)], own_masks(range(3))


def opened(
    plan: MaskedPlan, bodies: Sequence[bytes], keys: Sequence[MaskKey], participants: int
) -> OpenedFold:
    total = MaskedSum(plan)
    for body in bodies:
        total.add(body)
    total.subtract(keys)
    return total.open(participants)


def test_an_honest_round_opens() -> None:
    plan = masked_plan()
    assert opened(plan, *honest_round(plan), 3).clients == 6


@pytest.mark.parametrize("bits", RINGS)
def test_a_lost_replayed_or_forged_upload_does_not_open(bits: int) -> None:
    plan = masked_plan(bits)
    bodies, keys = honest_round(plan)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies[:2], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, [*bodies, bodies[0]], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, [bodies[0], bodies[0], bodies[2]], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, [*bodies[:2], bytes(plan.nbytes)], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies, keys[:2], 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies, [*keys, MaskKey(key_of("x"), 1)], 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies, keys, 2)


def tampered(plan: MaskedPlan, change: dict[int, int]) -> OpenedFold:
    """An honest round in which one participant adds to its wide elements."""
    fold = fold_clients(plan, [0])
    for at, value in change.items():
        fold._wide[at] += value
    fold.add_masks(own_masks([0]))
    other = fold_clients(plan, [1])
    other.add_masks(own_masks([1]))
    return opened(plan, [b"".join(fold.pack_chunks()), b"".join(other.pack_chunks())], own_masks([0, 1]), 2)


HEADER = numbers.HEADER_VALUES


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: 1}, "constant"),
        ({0: -1}, "constant"),
        ({1: -1}, "1 clients of 2 participants"),
        ({1: 39}, "41 clients"),
        ({2: 1000}, "total weight"),
        ({2: -(2**62)}, "total weight"),
        ({HEADER: 2**62}, "loss_sum"),
        ({HEADER: -(2**62)}, "loss_sum"),
        ({HEADER + 1: 2**62}, "moments"),
        ({HEADER + 7: 2**62}, "buffers"),
        ({HEADER + 7: -(2**62)}, "buffers"),
    ],
)
def test_sums_no_clients_can_make_do_not_open(change: dict[int, int], text: str) -> None:
    assert tampered(masked_plan(), {}).clients == 2
    with pytest.raises(NotConsistent, match=text):
        tampered(masked_plan(), change)


@pytest.mark.parametrize("bits", RINGS)
def test_a_narrow_sum_no_clients_can_make_does_not_open(bits: int) -> None:
    plan = masked_plan(bits)
    fold = fold_clients(plan, [0])
    fold._narrow[5] = (1 << (bits - 1)) - 1
    with pytest.raises(NotConsistent, match="encoder"):
        opened_alone(plan, fold)


@pytest.mark.parametrize("cut", [0, 1, 2, 100, 2121, -1, -8])
def test_an_upload_of_another_length_is_refused(cut: int) -> None:
    plan = masked_plan()
    body = upload(plan, 0, 2, [0])
    total = MaskedSum(plan)
    with pytest.raises(MalformedUpdate):
        total.add(body[:cut])
    with pytest.raises(MalformedUpdate):
        total.add(body + bytes(max(cut, 1)))
    assert total.packed_digest() == MaskedSum(plan).packed_digest()


@pytest.mark.parametrize("end", [0, 1, 700, 2121, 2122, 2129, 2280])
def test_pieces_that_run_short_spoil_the_sum(end: int) -> None:
    plan = masked_plan()
    bodies, keys = honest_round(plan)
    total = MaskedSum(plan)
    with pytest.raises(MalformedUpdate, match="expected 2281"):
        total.add(iter([bodies[0][:end]]))
    for body in bodies:
        total.add(body)
    total.subtract(keys)
    with pytest.raises(NotConsistent, match="cut short"):
        total.open(3)


def test_pieces_that_run_over_are_stopped_at_once() -> None:
    plan = masked_plan()
    body = upload(plan, 0, 2, [0])

    def endless():
        yield body
        yield b"x"
        raise AssertionError("read on")

    with pytest.raises(MalformedUpdate, match="more than"):
        MaskedSum(plan).add(endless())


def test_bytes_in_the_clear_are_not_handed_out() -> None:
    fold = fold_clients(masked_plan(), [0])
    with pytest.raises(ValueError, match="masked"):
        fold.pack_chunks()
    with pytest.raises(ValueError, match="without masks"):
        fold.add_masks([])
    empty = MaskedFold(masked_plan())
    empty.add_masks(own_masks([0]))
    with pytest.raises(ValueError, match="at least one client"):
        empty.pack_chunks()


def test_masks_are_added_once() -> None:
    fold = fold_clients(masked_plan(), [0])
    fold.add_masks(own_masks([0]))
    with pytest.raises(ValueError, match="once"):
        fold.add_masks(own_masks([0]))


def test_nothing_is_added_under_masks_that_were_used() -> None:
    fold = fold_clients(masked_plan(), [0])
    fold.add_masks(own_masks([0]))
    before = b"".join(fold.pack_chunks())
    with pytest.raises(ValueError, match="handed out"):
        fold.add_client(UPDATES[1].body, 1, key_of(1))
    assert b"".join(fold.pack_chunks()) == before


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 8.1], ids=["nan", "inf", "-inf", "over the bound"]
)
@pytest.mark.parametrize("position", [0, 703, 709])
def test_a_bad_value_is_refused_before_anything_is_added(value: float, position: int) -> None:
    plan = masked_plan()
    body = bytearray(UPDATES[0].body)
    body[4 * position : 4 * position + 4] = np.float32(value).tobytes()
    fold = MaskedFold(plan)
    with pytest.raises(UpdateRefused):
        fold.add_client(body, 1, key_of(0))
    assert not fold._narrow.any()
    assert fold._wide.tolist() == [1] + [0] * 19
    assert (fold.clients, fold.weight) == (0, 0)


@pytest.mark.parametrize("weight", [0, -1, 1.5, True, math.nan])
def test_a_weight_that_is_none_is_refused(weight: int) -> None:
    fold = MaskedFold(masked_plan())
    with pytest.raises(UpdateRefused):
        fold.add_client(UPDATES[0].body, weight, key_of(0))
    assert fold.clients == 0


def test_a_body_of_another_length_or_key_is_refused() -> None:
    fold = MaskedFold(masked_plan())
    with pytest.raises(UpdateRefused):
        fold.add_client(UPDATES[0].body[:-1], 1, key_of(0))
    with pytest.raises(ValueError, match="key"):
        fold.add_client(UPDATES[0].body, 1, b"short")
    assert not fold._narrow.any()


@pytest.mark.parametrize(
    "change",
    [
        {"ring_bits": 8},
        {"ring_bits": 64},
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": math.nan},
        {"clip": math.inf},
        {"max_client_weight": 0},
        {"max_client_weight": 1.0},
        {"max_cohort": 0},
        {"max_cohort": True},
    ],
)
def test_settings_that_are_none_are_refused(change: dict) -> None:
    with pytest.raises(FoldConfigError):
        MaskedSettings(**{"max_cohort": 4} | change)


@pytest.mark.parametrize("change", [{"max_cohort": 41}, {"max_client_weight": 1001}])
def test_caps_beyond_the_run_s_are_refused(change: dict) -> None:
    with pytest.raises(FoldConfigError, match="more"):
        MaskedPlan.create(FOLD_PLAN, MaskedSettings(**{"max_cohort": 40, "max_client_weight": 1000} | change))


# --- the ring by itself ---


@given(st.sampled_from(RINGS), st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_a_ring_packs_modulo_its_size(bits: int, elements: list[int]) -> None:
    ring = ModRing(bits, 1.0)
    packed = ring.pack(np.array(elements, np.uint32))
    assert packed == b"".join((e % 2**bits).to_bytes(bits // 8, "little") for e in elements)
    assert ring.unpack(packed, len(elements)).tolist() == [e % 2**bits for e in elements]
    signed = [(e + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for e in elements]
    assert ring.signed(np.array(elements, np.uint32)).tolist() == signed


@pytest.mark.parametrize("bits", RINGS)
def test_a_ring_refuses_other_lengths(bits: int) -> None:
    for nbytes in (0, bits // 8 * 3 - 1, bits // 8 * 3 + 1):
        with pytest.raises(MalformedUpdate):
            ModRing(bits, 1.0).unpack(bytes(nbytes), 3)
    with pytest.raises(ValueError, match="ring"):
        ModRing(bits + 1, 1.0)


def test_rounding_up_past_the_bound_is_brought_back() -> None:
    """2**28 + (1 - 2**-32) is 2**28 + 1 in float64."""
    ring = ModRing(32, 1.0, RoundingStream(key_of("past")))
    ring._rounder._stream.next = lambda n: np.full(n, 2**32 - 1, np.uint32)  # type: ignore[method-assign]
    values = np.float32([1.0, -1.0, 0.5])
    assert ring.signed(ring.quantise(values, 1, 28)).tolist()[0] == 2**28
    assert ring.signed(ring.quantise(values, 1, 28)).tolist()[1] >= -(2**28)


def test_without_a_stream_values_are_rounded_to_the_nearest() -> None:
    ring = ModRing(24, 10.0)
    values = np.float32([0.4, 0.6, -0.4, -0.6, 3.0])
    assert ring.signed(ring.quantise(values, 1, 0)).tolist() == [0, 1, 0, -1, 3]
    assert ring.open(ring.quantise(values, 2, 3), 3, 2).tolist() == [0.375, 0.625, -0.375, -0.625, 3.0]


def test_extra_memory_does_not_grow_with_the_model() -> None:
    size = 1_000_000
    plan = masked_plan(plan=small_plan(size, 2, 1), cohort=2, weight=1)
    body = encode_update(plan.fold, np.zeros(size, np.float32), {})
    fold, total = MaskedFold(plan), MaskedSum(plan)
    tracemalloc.start()
    fold.add_client(body, 1, key_of(0))
    fold.add_masks(own_masks([0]))
    total.add(fold.pack_chunks())
    total.subtract(own_masks([0]))
    total.packed_digest()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20
