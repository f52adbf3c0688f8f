"""Updates and folds that lie: every one is refused whole, named, counted, and leaves no bit in the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ssd.updates.codec import MAX_EXPONENT
from ssd.updates.fold import encode_update
from ssd.updates.packing import pack_int64
from ssd_proto.v1 import federation_pb2 as pb
from wire.hostile import Site
from wire.wire_calls import Outcome, changed

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
PRECONDITION, ARGUMENT, ABORTED = Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, Code.ABORTED


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("updates")) as site:
        # The first client of the cohort is in the sum already; the hostile uploads claim the second one.
        site.contribute(site.alpha, site.cohort[0])
        yield site


def send(site: Site, body: bytes | None = None, *, client: int = 1, **changes: Any) -> Callable[[], Outcome]:
    """An upload of `alpha` for one client, honest but for the changes."""
    name = site.cohort[client]
    content = site.honest[name][0] if body is None else body
    return lambda: site.submit(site.alpha, site.envelope(name, content, **changes), content)


ADDRESSED: list[tuple[str, dict[str, Any], Code, str, str]] = [
    ("another run", {"run_id": "f" * 16}, PRECONDITION, "wrong_run", "rejected"),
    ("no run", {"run_id": ""}, PRECONDITION, "wrong_run", "rejected"),
    ("a spec of its own", {"spec_digest": "0" * 64}, PRECONDITION, "wrong_spec", "rejected"),
    ("a spec of a megabyte", {"spec_digest": "é" * (1 << 19)}, PRECONDITION, "wrong_spec", "rejected"),
    ("a round to come", {"round": 3}, PRECONDITION, "wrong_round", "rejected"),
    ("the last round there can be", {"round": 2**64 - 1}, PRECONDITION, "wrong_round", "rejected"),
    ("round zero", {"round": 0}, PRECONDITION, "wrong_round", "rejected"),
    ("a round gone by", {"round": 1}, ABORTED, "too_late", "discarded"),
    ("another base", {"base_digest": "0" * 64}, PRECONDITION, "wrong_base", "rejected"),
    ("an attempt to come", {"attempt": 2}, ABORTED, "stale_attempt", "discarded"),
    ("an attempt gone by", {"attempt": 0}, ABORTED, "stale_attempt", "discarded"),
    ("another task", {"task_digest": "0" * 64}, PRECONDITION, "wrong_task", "rejected"),
    ("no kind", {"kind": 0}, ARGUMENT, "malformed_message", None),
    ("a kind to come", {"kind": 7}, ARGUMENT, "malformed_message", None),
    ("half a digest", {"chunk_digests": b"x" * 31}, ARGUMENT, "malformed_message", None),
    ("digests of other chunks", {"chunk_digests": b"x" * 64}, ARGUMENT, "wrong_length", "rejected"),
    ("no clients", {"clients": []}, ARGUMENT, "malformed_message", "rejected"),
    ("no body", {"body_size": 0, "chunk_digests": b""}, ARGUMENT, "wrong_length", "rejected"),
    ("a byte too many", {"body_size": 40_000}, ARGUMENT, "wrong_length", "rejected"),
    ("16 EiB", {"body_size": 2**64 - 1}, ARGUMENT, "wrong_length", "rejected"),
]


@pytest.mark.parametrize(
    ("changes", "code", "reason", "fate"),
    [case[1:] for case in ADDRESSED],
    ids=[case[0] for case in ADDRESSED],
)
def test_an_envelope_that_is_addressed_wrongly(
    site: Site, changes: dict[str, Any], code: Code, reason: str, fate: str | None
) -> None:
    if fate is None:
        # It cannot even be read as an envelope: there is no update to judge.
        site.refuses("submit_update", send(site, **changes), code, reason)
    else:
        site.refuses_upload(
            send(site, **changes), code, reason, fate=fate, verdict=reason != "malformed_message"
        )


def test_clients_that_are_not_this_workers_to_speak_for(site: Site) -> None:
    outsider, theirs = site.outsider, site.cohort[2]
    refused = send(site, clients=[pb.WeightedClient(client=theirs, weight=1)])
    site.refuses_upload(refused, Code.PERMISSION_DENIED, "client_not_hosted")
    refused = send(site, clients=[pb.WeightedClient(client="../../x", weight=1)])
    site.refuses_upload(refused, Code.PERMISSION_DENIED, "client_not_hosted")
    refused = send(site, clients=[pb.WeightedClient(client=outsider, weight=1)])
    site.refuses_upload(refused, PRECONDITION, "client_not_invited")


def test_an_update_that_is_in_the_sum_already(site: Site) -> None:
    site.refuses_upload(send(site, client=0), Code.ALREADY_EXISTS, "duplicate", fate="discarded")


@pytest.mark.parametrize(
    "weight",
    [0, 65537, 1 << 53, 1 << 63, (1 << 64) - 1],
    ids=["0", "over the limit", "2^53", "2^63", "-1 on the wire"],
)
def test_a_weight_out_of_range(site: Site, weight: int) -> None:
    clients = [pb.WeightedClient(client=site.cohort[1], weight=weight)]
    site.refuses_upload(send(site, clients=clients), ARGUMENT, "weight_out_of_range")


# ----------------------------------------------------------------------------------------------- bodies


def content(site: Site) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    """A delta and statistics that would pass, to be spoilt."""
    plan = site.alpha.plan
    assert plan is not None
    return np.zeros(plan.size, np.float32), {each.name: np.zeros(each.shape) for each in plan.statistics}


def put(site: Site, place: str, value: bytes) -> bytes:
    """An honest body with some bytes of one segment or of the statistics replaced."""
    plan = site.alpha.plan
    assert plan is not None
    body = bytearray(site.honest[site.cohort[1]][0])
    half = plan.codec._segments[0]
    buffers = plan.codec._segments[-1]
    start = {
        "first value": half.payload,
        "header": half.header,
        "buffer": buffers.payload + 4 * (buffers.size // 2),
        "statistic": plan.codec.nbytes + 8,
    }[place]
    body[start : start + len(value)] = value
    return bytes(body)


def float32(value: float) -> bytes:
    return np.float32(value).tobytes()


SPOILT = [
    ("NaN among the halves", "first value", np.float16("nan").tobytes(), "not_finite"),
    ("infinity among the halves", "first value", np.float16("-inf").tobytes(), "not_finite"),
    ("an exponent out of range", "header", np.int16(32000).tobytes(), "malformed_update"),
    ("an exponent far too large", "header", np.int16(MAX_EXPONENT).tobytes(), "over_bound"),
    ("NaN in an uncompressed group", "buffer", float32(np.nan), "not_finite"),
    ("infinity in an uncompressed group", "buffer", float32(np.inf), "not_finite"),
    ("a value over its bound", "buffer", float32(0.0801), "over_bound"),
    ("a statistic that is NaN", "statistic", np.float64("nan").tobytes(), "not_finite"),
    ("a statistic that is infinite", "statistic", np.float64("-inf").tobytes(), "not_finite"),
    ("a statistic out of its range", "statistic", np.float64(1e300).tobytes(), "statistic_out_of_range"),
]


@pytest.mark.parametrize(
    ("place", "value", "reason"), [case[1:] for case in SPOILT], ids=[case[0] for case in SPOILT]
)
def test_a_body_with_a_bad_value(site: Site, place: str, value: bytes, reason: str) -> None:
    site.refuses_upload(send(site, put(site, place, value)), ARGUMENT, reason)


def test_an_update_that_is_too_long_a_step(site: Site) -> None:
    delta, statistics = content(site)
    plan = site.alpha.plan
    assert plan is not None
    delta[plan.groups[0].where] = 0.9 * plan.groups[0].max_abs
    site.refuses_upload(send(site, encode_update(plan, delta, statistics)), ARGUMENT, "over_norm")


# ------------------------------------------------------------------------------------------------ folds


def send_fold(
    site: Site, body: bytes, weights: dict[str, int] | None = None, **changes: Any
) -> Callable[[], Outcome]:
    """A fold of alpha's one client that is still wanted, unless other weights are given."""
    name = site.cohort[1]
    claimed = {name: site.honest[name][1]} if weights is None else weights
    envelope = changed(site.alpha.envelope(site.task, claimed, body, fold=True), **changes)
    return lambda: site.submit(site.alpha, envelope, body)


def packed(site: Site, values: np.ndarray[Any, Any], statistics: np.ndarray[Any, Any] | None = None) -> bytes:
    plan = site.alpha.plan
    assert plan is not None
    zeros = np.zeros(plan.statistics_size, np.int64)
    return b"".join((pack_int64(values), pack_int64(zeros if statistics is None else statistics)))


def honest_fold(site: Site) -> bytearray:
    return bytearray(site.alpha.fold([site.honest[site.cohort[1]]]))


def test_a_packed_fold_that_is_not_what_it_says(site: Site) -> None:
    plan = site.alpha.plan
    assert plan is not None
    blocks = -(-plan.size // 4096)
    width_at = 8 * blocks
    refusals: list[bytes] = [
        bytes(honest_fold(site) + b"\0"),
        bytes(honest_fold(site)[:-1]),
        b"\0",
        b"\xff" * 100,
    ]
    for width in (0, 1, 3, 8, 9, 255):
        fold = honest_fold(site)
        fold[width_at] = width
        refusals.append(bytes(fold))
    bomb = honest_fold(site)
    bomb[width_at : width_at + blocks] = b"\x08" * blocks
    refusals.append(bytes(bomb))
    for body in refusals:
        site.refuses_upload(send_fold(site, body), ARGUMENT, "malformed_update")


def test_a_fold_longer_than_any_can_be(site: Site) -> None:
    plan = site.alpha.plan
    assert plan is not None
    body = bytes(plan.max_fold_nbytes + 1)
    site.refuses_upload(send_fold(site, body), ARGUMENT, "wrong_length")
    site.refuses_upload(send_fold(site, b"", body_size=2**63), ARGUMENT, "wrong_length")


def test_a_fold_that_weighs_more_than_it_says(site: Site) -> None:
    plan = site.alpha.plan
    assert plan is not None
    first = site.cohort[1]
    group = plan.groups[0]
    unit = group.max_abs * 2.0**group.scale_bits
    values = np.zeros(plan.size, np.int64)
    values[0] = int(1.5 * unit)
    site.refuses_upload(send_fold(site, packed(site, values), {first: 1}), ARGUMENT, "over_bound")
    values[0] = np.iinfo(np.int64).min
    site.refuses_upload(send_fold(site, packed(site, values), {first: 65536}), ARGUMENT, "over_bound")
    values[group.where] = int(0.9 * unit)
    site.refuses_upload(send_fold(site, packed(site, values), {first: 1}), ARGUMENT, "over_norm")
    statistics = np.full(plan.statistics_size, np.iinfo(np.int64).max)
    body = packed(site, np.zeros(plan.size, np.int64), statistics)
    site.refuses_upload(send_fold(site, body), ARGUMENT, "statistic_out_of_range")
    for weight in (0, 65537, 1 << 63):
        body = bytes(honest_fold(site))
        site.refuses_upload(send_fold(site, body, {first: weight}), ARGUMENT, "weight_out_of_range")


def test_a_fold_of_clients_that_may_not_be_in_it(site: Site) -> None:
    done, mine, theirs = site.cohort
    body = bytes(honest_fold(site))
    twice = [pb.WeightedClient(client=mine, weight=3)] * 2
    site.refuses_upload(
        send_fold(site, body, clients=twice), Code.ALREADY_EXISTS, "duplicate", fate="discarded"
    )
    overlap = send_fold(site, body, {done: 1, mine: 1})
    site.refuses_upload(overlap, Code.ALREADY_EXISTS, "duplicate", fate="discarded")
    site.refuses_upload(
        send_fold(site, body, {mine: 1, theirs: 1}), Code.PERMISSION_DENIED, "client_not_hosted"
    )
    site.refuses_upload(
        send_fold(site, body, {mine: 1, site.outsider: 1}), PRECONDITION, "client_not_invited"
    )
    site.refuses_upload(send_fold(site, body, {}), ARGUMENT, "malformed_message", verdict=False)


# ------------------------------------------------------------------------------------- the other encodings


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_bodies_in_the_other_encodings(tmp_path: Path, encoding: str) -> None:
    with Site(tmp_path, **{"wire.update_encoding": encoding}) as site:
        not_a_number, infinite = float32(np.nan), float32(-np.inf)
        cases = [
            (put(site, "buffer", not_a_number), "not_finite"),
            (put(site, "buffer", infinite), "not_finite"),
            # In float32 the header is the first value, in int8 it is a block's scale.
            (put(site, "header", not_a_number), "not_finite"),
            (put(site, "header", float32(np.inf)), "not_finite"),
            (put(site, "header", float32(1e30)), "over_bound"),
            (put(site, "statistic", np.float64("nan").tobytes()), "not_finite"),
        ]
        if encoding == "int8":
            cases.append((put(site, "header", float32(-1e-3)), "malformed_update"))
            cases.append((put(site, "header", float32(3e38)), "not_finite"))
            cases.append((put(site, "first value", b"\x80"), "malformed_update"))
        for body, reason in cases:
            site.refuses_upload(send(site, body), ARGUMENT, reason)
        site.check_end()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()
