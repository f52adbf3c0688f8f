"""Uploads that break, lie about their bytes, stall, or meet a full staging area."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from ssd.digest import CHUNK_BYTES, chunk_digests
from ssd_proto.v1 import federation_pb2 as pb
from wire.hostile import Site, reference
from wire.raw_worker import RawWorker
from wire.wire_calls import Outcome, Upload

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
UP = "ssd_coordinator_transfer_bytes_total"
METHOD = {"method.config": {"parameters": 1_200_000}}
"""A body of 2.4 MB in float16: three chunks, the last one short."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("transfer"), **METHOD) as site:
        yield site


def started(site: Site, client: int = 0, worker: RawWorker | None = None) -> tuple[Upload, bytes]:
    """An honest upload, let in."""
    name = site.cohort[client]
    upload = Upload(worker or site.alpha, site.envelope(name))
    assert upload.proceeded()
    return upload, site.honest[name][0]


def chunk(offset: int, data: bytes) -> pb.UploadPart:
    return pb.UploadPart(chunk=pb.Chunk(offset=offset, data=data))


def test_messages_in_the_wrong_order(site: Site) -> None:
    def upload(*messages: pb.UploadPart) -> Callable[[], Outcome]:
        return lambda: site.upload(site.alpha, messages)

    for first in (chunk(0, b"x"), pb.UploadPart()):
        site.refuses("submit_update", upload(first), Code.FAILED_PRECONDITION, "wrong_order")
    site.refuses("submit_update", upload(), Code.FAILED_PRECONDITION, "wrong_order")
    envelope = pb.UploadPart(envelope=site.envelope(site.cohort[0]))
    twice = upload(envelope, envelope)
    site.refuses_upload(twice, Code.FAILED_PRECONDITION, "wrong_order")
    nothing = upload(envelope, pb.UploadPart())
    site.refuses_upload(nothing, Code.FAILED_PRECONDITION, "wrong_order")


@pytest.mark.parametrize("token", [None, "", "0" * 32, "x" * 4000, "twice"])
def test_uploads_without_a_session(site: Site, token: str | None) -> None:
    metadata = () if token is None else (("ssd-session", token),)
    if token == "twice":
        metadata = 2 * site.alpha.metadata()
    envelope = pb.UploadPart(envelope=site.envelope(site.cohort[0]))
    site.refuses(
        "submit_update",
        lambda: site.upload(site.alpha, [envelope], metadata=metadata),
        Code.UNAUTHENTICATED,
        "no_session",
    )


def test_a_truncated_upload_goes_on_where_it_broke(site: Site) -> None:
    stop = CHUNK_BYTES + 100_000

    def cut() -> Outcome:
        upload, body = started(site)
        upload.send_body(body, stop)
        upload.end()
        return upload.outcome()

    site.refuses_upload(cut, Code.DATA_LOSS, "truncated", verdict=False)
    upload, body = started(site)
    assert upload.offset == stop
    # And once more, from a broken connection this time.
    up = site.federation.metric(UP, direction="up")
    upload.send_body(body, 2 * CHUNK_BYTES)
    rest = 2 * CHUNK_BYTES - stop
    site.federation.until(
        lambda: site.federation.metric(UP, direction="up") == up + rest, "the piece arrived"
    )
    truncated = ("updates", "rejected", "truncated")
    before = site.counts()[truncated]
    upload.call.cancel()
    # Whether the handler sees the end of the stream or is cancelled itself, it is a truncated upload.
    site.federation.until(lambda: site.counts()[truncated] == before + 1, "the end of the call is noticed")
    upload, _ = started(site)
    assert upload.offset == 2 * CHUNK_BYTES
    given_up(upload)


def given_up(upload: Upload) -> None:
    """Break an upload off and wait until the coordinator has noticed."""
    upload.end()
    assert upload.outcome().reason == "truncated"


@pytest.mark.parametrize("step", [CHUNK_BYTES, 300_000])
def test_a_corrupted_chunk_is_sent_again(site: Site, step: int) -> None:
    def corrupt() -> Outcome:
        upload, body = started(site, 1)
        damaged = bytearray(body)
        # In the first piece of the second chunk: what follows it is intact.
        damaged[CHUNK_BYTES + 10] ^= 1
        upload.send_body(bytes(damaged), step=step)
        return upload.outcome()

    site.refuses_upload(corrupt, Code.DATA_LOSS, "corrupt_chunk", verdict=False)
    upload, body = started(site, 1)
    assert upload.offset == CHUNK_BYTES
    given_up(upload)


def test_chunks_at_the_wrong_place(site: Site) -> None:
    for offset in (1, CHUNK_BYTES, 1 << 63):

        def misplaced(offset: int = offset) -> Outcome:
            upload, body = started(site, 2, site.beta)
            upload.send_chunk(upload.offset + offset, b"x")
            return upload.outcome()

        site.refuses_upload(misplaced, Code.OUT_OF_RANGE, "bad_offset", verdict=False)


def test_chunks_of_the_wrong_length(site: Site) -> None:
    length = len(site.honest[site.cohort[2]][0])
    before, tail = CHUNK_BYTES - 1, length % CHUNK_BYTES
    for place, data in ((0, b""), (before, b"xy"), (2 * CHUNK_BYTES, b"x" * (tail + 1))):

        def oversized(place: int = place, data: bytes = data) -> Outcome:
            upload, body = started(site, 2, site.beta)
            upload.send_body(body, place)
            upload.send_chunk(upload.offset, data)
            return upload.outcome()

        site.refuses_upload(oversized, Code.INVALID_ARGUMENT, "wrong_length")


def test_a_message_that_is_garbage_or_too_large(site: Site) -> None:
    def after_the_envelope(message: bytes) -> Callable[[], Outcome]:
        def send() -> Outcome:
            upload, _ = started(site, 2, site.beta)
            upload.send(message)
            return upload.outcome()

        return send

    garbage = after_the_envelope(b"\xff\xff\xff")
    site.refuses_upload(garbage, Code.INVALID_ARGUMENT, "malformed_message", verdict=False)
    large = after_the_envelope(chunk(0, bytes(3 << 20)).SerializeToString())
    site.refuses_upload(large, Code.RESOURCE_EXHAUSTED, "message_too_large")
    # Over gRPC's own limit our code sees the end of the stream; the sender hears either of the two.
    before = site.counts()
    outcome = after_the_envelope(chunk(0, bytes(6 << 20)).SerializeToString())()
    assert outcome.code in (Code.RESOURCE_EXHAUSTED, Code.DATA_LOSS), outcome
    truncated = ("updates", "rejected", "truncated")
    site.federation.until(
        lambda: site.counts().get(truncated, 0) == before.get(truncated, 0) + 1, "it counts as truncated"
    )
    site.well()


def test_the_same_upload_from_two_calls_at_once(site: Site) -> None:
    """A worker whose connection died starts again before the coordinator knows: the newer call takes over."""
    older, body = started(site, 2, site.beta)
    older.send_body(body, 2 * CHUNK_BYTES + 7)
    newer = Upload(site.beta, site.envelope(site.cohort[2]))
    assert newer.proceeded()
    ended = older.outcome()
    assert (ended.code, ended.reason) == (Code.ABORTED, "fenced")
    assert ended.verdict is None
    given_up(newer)
    site.well()


def test_an_upload_ends_with_its_session(site: Site) -> None:
    """Room for a body is never kept for a worker that is gone; what arrived waits for its next session."""
    staged = site.federation.metric("ssd_coordinator_staging_bytes", kind="ram")
    older, body = started(site, 2, site.beta)
    older.send_body(body, CHUNK_BYTES)
    before = site.counts()
    again = site.worker("beta", site.cohort[2:])
    ended = older.outcome()
    assert (ended.code, ended.reason) == (Code.UNAUTHENTICATED, "no_session")
    grown = site.counts()["refused", "submit_update", "no_session"]
    assert grown == before.get(("refused", "submit_update", "no_session"), 0) + 1
    site.beta.close()
    site.beta = again
    resumed, _ = started(site, 2, again)
    assert resumed.offset >= CHUNK_BYTES
    given_up(resumed)
    assert site.federation.metric("ssd_coordinator_staging_bytes", kind="ram") == staged


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.well()
    assert site.finish() == reference(site.settings)
    for kind in ("ram", "disk"):
        assert site.federation.metric("ssd_coordinator_staging_bytes", kind=kind) == 0
    site.ends_cleanly()


# --------------------------------------------------------------------------------------- no room for a body


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_without_room_an_upload_is_held_and_never_refused(tmp_path: Path, kind: str) -> None:
    large = bytes(160_000)
    budget = {f"limits.staging_{other}_bytes": 0 for other in ("ram", "disk")}
    budget[f"limits.staging_{kind}_bytes"] = 200_000
    with Site(tmp_path, **budget) as site:
        assert 200_000 - len(large) < len(site.honest[site.cohort[1]][0])
        # A fold as large as one may be leaves no room for an update, and is still being sent.
        filling = Upload(
            site.alpha,
            site.envelope(
                site.cohort[0],
                kind=pb.Envelope.KIND_FOLD,
                body_size=len(large),
                chunk_digests=b"".join(chunk_digests(large)),
            ),
        )
        assert filling.proceeded()
        assert site.federation.metric("ssd_coordinator_staging_bytes", kind=kind) == len(large)
        waiting = [
            Upload(worker, site.envelope(client))
            for worker, client in ((site.alpha, site.cohort[1]), (site.beta, site.cohort[2]))
        ]
        for upload in waiting:
            first = upload.reply()
            assert first is not None
            assert first.WhichOneof("kind") == "hold"
        site.well()
        # It breaks off: what nobody is sending gives way.
        filling.call.cancel()
        for upload, client in zip(waiting, site.cohort[1:], strict=True):
            assert upload.proceeded()
            upload.send_body(site.honest[client][0])
            assert upload.outcome().verdict.fate == pb.Verdict.FATE_ACCEPTED
            site.contributed.add(client)
        assert site.finish() == reference(site.settings)
        site.federation.until(
            lambda: site.federation.metric("ssd_coordinator_staging_bytes", kind=kind) == 0,
            "the room is free",
        )
        site.ends_cleanly()


def test_an_upload_waits_for_memory_but_not_for_one_that_is_never_sent(tmp_path: Path) -> None:
    large = bytes(160_000)
    with Site(tmp_path, **{"limits.staging_ram_bytes": 200_000}) as site:
        first, second, third = site.cohort
        declared = site.envelope(
            first,
            kind=pb.Envelope.KIND_FOLD,
            body_size=len(large),
            chunk_digests=b"".join(chunk_digests(large)),
        )
        # It takes the memory and sends nothing.
        filling = Upload(site.alpha, declared)
        assert filling.proceeded()
        waiting = Upload(site.beta, site.envelope(third))
        held = waiting.reply()
        assert held is not None
        assert held.WhichOneof("kind") == "hold"
        # The disk has room for what would otherwise wait for as long as somebody likes.
        assert waiting.proceeded()
        taken = {
            kind: site.federation.metric("ssd_coordinator_staging_bytes", kind=kind)
            for kind in ("ram", "disk")
        }
        assert taken == {"ram": len(large), "disk": len(site.honest[third][0])}
        waiting.send_body(site.honest[third][0])
        assert waiting.outcome().verdict.fate == pb.Verdict.FATE_ACCEPTED
        filling.call.cancel()
        for client in (first, second):
            site.contribute(site.alpha, client)
        site.contributed.update(site.cohort)
        assert site.finish() == reference(site.settings)
        site.ends_cleanly()


def test_a_worker_has_its_share_of_the_room_and_is_held_beyond_it(tmp_path: Path) -> None:
    with Site(tmp_path, **{"limits.staging_bytes_per_worker": 60_000}) as site:
        first, second, third = site.cohort
        filling = Upload(site.alpha, site.envelope(first))
        assert filling.proceeded()
        waiting = Upload(site.alpha, site.envelope(second))
        held = waiting.reply()
        assert held is not None
        assert held.WhichOneof("kind") == "hold"
        # Another worker's room is its own.
        site.contribute(site.beta, third)
        filling.send_body(site.honest[first][0])
        assert filling.outcome().verdict.fate == pb.Verdict.FATE_ACCEPTED
        assert waiting.proceeded()
        # What it broke off itself makes room for what it sends now.
        waiting.call.cancel()
        site.contribute(site.alpha, second)
        site.contributed.update(site.cohort)
        assert site.finish() == reference(site.settings)
        site.ends_cleanly()


def test_a_client_has_one_upload_at_a_time(tmp_path: Path) -> None:
    """Otherwise variants of one envelope could take all the room there is."""
    with Site(tmp_path) as site:
        body, weight = site.honest[site.cohort[0]]
        variants = []
        for seconds in range(3):
            clients = [pb.WeightedClient(client=site.cohort[0], weight=weight, training_seconds=seconds)]
            variants.append(Upload(site.alpha, site.envelope(site.cohort[0], clients=clients)))
            assert variants[-1].proceeded()
        assert site.federation.metric("ssd_coordinator_staging_bytes", kind="ram") == len(body)
        for older in variants[:-1]:
            ended = older.outcome()
            assert (ended.code, ended.reason) == (Code.ABORTED, "fenced")
        variants[-1].send_body(body)
        assert variants[-1].outcome().verdict.fate == pb.Verdict.FATE_ACCEPTED
        site.contributed.add(site.cohort[0])
        assert site.finish() == reference(site.settings)
        site.ends_cleanly()


# ------------------------------------------------------------------------------- calls that break off at the end


def test_calls_cancelled_at_every_moment_of_the_judgement(tmp_path: Path) -> None:
    """The body is whole, the caller goes away: the coordinator judges it all the same, or as if it never came."""
    rounds = 5
    changes = {"run.rounds": rounds, **METHOD}
    with Site(tmp_path, open_round=False, **changes) as site:
        worker = site.alpha
        pause = threading.Event()
        for number in range(rounds):
            task = worker.expect("train")
            assert task.round == number + 1
            for position, each in enumerate(task.clients):
                body, weight = worker.train(task, each.client)
                envelope = worker.envelope(task, {each.client: weight}, body)
                upload = Upload(worker, envelope)
                assert upload.proceeded()
                upload.send_body(body)
                pause.wait((3 * number + position) * 0.003)
                upload.call.cancel()
                # Whatever became of it, the worker offers it again until it is in.
                again = site.submit(worker, envelope, body)
                assert again.verdict is not None, again
                assert again.verdict.reason in ("", "duplicate", "too_late"), again
        site.federation.until(lambda: site.federation.status().version.number == rounds, "all rounds commit")
        assert site.federation.digests() == reference(site.settings)
        site.ends_cleanly()
