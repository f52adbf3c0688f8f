"""One participant's masked vector: its bytes, its limits, and what may not be added to it or leave it."""

from __future__ import annotations

import hashlib
import math
import tracemalloc

import numpy as np
import pytest

from secure.masked_numbers import (
    RINGS,
    UPDATES,
    fold_clients,
    key_of,
    masked_plan,
    masks_of,
    opened_alone,
    own_masks,
    same,
    small_plan,
    upload,
)
from ssd.digest import CHUNK_BYTES
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import HEADER_VALUES
from ssd.secagg.numbers.masked_sum import MaskedSum
from ssd.updates.check import UpdateRefused
from ssd.updates.fold import encode_update


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
    assert sum(map(len, chunks)) == plan.nbytes == 3 * size + 8 * HEADER_VALUES
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
