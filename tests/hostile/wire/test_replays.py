"""What was good once: replayed in another round, attempt or session, continued by somebody else, said too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ssd.digest import CHUNK_BYTES
from ssd.trust.names import Role
from ssd_proto.v1 import federation_pb2 as pb
from wire.hostile import Site
from wire.raw_http2 import RawHttp2, message
from wire.wire_calls import FEDERATION, Upload, ask

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
METHOD = {"method.config": {"parameters": 1_200_000}}
"""A body of 2.4 MB in float16: three chunks, the last one short."""
INSTANCE = "b" * 32


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("replays"), **METHOD) as site:
        yield site


def test_an_upload_begun_by_one_worker_cannot_be_continued_by_another(site: Site) -> None:
    client = site.cohort[0]
    body = site.honest[client][0]
    begun = Upload(site.alpha, site.envelope(client))
    assert begun.proceeded()
    begun.send_body(body, CHUNK_BYTES)
    site.federation.until(
        lambda: site.federation.metric("ssd_coordinator_transfer_bytes_total", direction="up") >= CHUNK_BYTES,
        "a chunk has arrived",
    )
    begun.end()
    assert begun.outcome().reason == "truncated"
    # The very same envelope, in another worker's session.
    site.refuses_upload(
        lambda: site.submit(site.beta, site.envelope(client), body),
        Code.PERMISSION_DENIED,
        "client_not_hosted",
    )
    resumed = Upload(site.alpha, site.envelope(client))
    assert resumed.proceeded()
    assert resumed.offset == CHUNK_BYTES
    resumed.end()
    assert resumed.outcome().reason == "truncated"


def test_a_fenced_worker_that_goes_on_talking_is_not_heard(site: Site) -> None:
    with site.federation.raw_worker("mallory", [], instance=INSTANCE) as older:
        older.attend()
        with site.federation.raw_worker("mallory", [], instance=INSTANCE) as newer:
            newer.attend()
            assert older.next() is None
            before = site.federation.status().cohort
            for _ in range(100):
                older.up.put(
                    pb.WorkerMessage(task_failed=pb.TaskFailed(round=2, attempt=1, client=site.cohort[0]))
                )
            no_session = (Code.UNAUTHENTICATED, "no_session")
            envelope = pb.UploadPart(envelope=site.envelope(site.cohort[0]))
            site.refuses("submit_update", lambda: site.upload(older, [envelope]), *no_session)
            request = pb.FetchBlobRequest(digest=site.task.base.full.digest)
            site.refuses(
                "fetch_blob",
                lambda: ask(
                    older.channel, f"{FEDERATION}/FetchBlob", request, pb.BlobPart, metadata=older.metadata()
                ),
                *no_session,
            )
            assert site.federation.status().cohort == before
            assert newer.status is None
    site.federation.until(
        lambda: {each.worker for each in site.federation.status().workers} == {"alpha", "beta"},
        "it is seen out",
    )


def test_an_accepted_update_is_not_taken_twice_in_any_session(site: Site) -> None:
    client = site.cohort[2]
    body = site.honest[client][0]
    envelope = site.envelope(client)
    token = site.beta.metadata()
    site.contribute(site.beta, client)
    duplicate = (Code.ALREADY_EXISTS, "duplicate")
    site.refuses_upload(lambda: site.submit(site.beta, envelope, body), *duplicate, fate="discarded")
    # From a new session of the same worker, and with the token of the old one.
    again = site.worker("beta", site.cohort[2:])
    site.refuses_upload(lambda: site.submit(again, envelope, body), *duplicate, fate="discarded")
    part = pb.UploadPart(envelope=envelope)
    site.refuses(
        "submit_update",
        lambda: site.upload(again, [part], metadata=token),
        Code.UNAUTHENTICATED,
        "no_session",
    )
    site.beta.close()
    site.beta = again


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 1}, "too_late"),
        ({"attempt": 0}, "stale_attempt"),
        ({"attempt": 2**32 - 1}, "stale_attempt"),
    ],
)
def test_an_envelope_of_another_round_or_attempt(site: Site, changes: dict[str, int], reason: str) -> None:
    client = site.cohort[1]
    body = site.honest[client][0]
    site.refuses_upload(
        lambda: site.submit(site.alpha, site.envelope(client, **changes), body),
        Code.ABORTED,
        reason,
        fate="discarded",
    )


def test_a_thousand_reconnects_a_second(site: Site) -> None:
    """New connections that say hello and go: they are let in and seen out, and the round does not notice."""
    assert site.federation.pki is not None
    tls = site.federation.pki.context(Role.WORKER, "mallory", site.federation.root)
    before = site.federation.metric("ssd_coordinator_memory_peak_bytes")
    began, count = time.monotonic(), 2000
    for number in range(count):
        hello = pb.Hello(protocol_min=1, protocol_max=1, worker="mallory", instance="a" * 32)
        with RawHttp2(site.federation.port, tls=tls) as peer:
            call = peer.call(f"{FEDERATION}/Attend")
            peer.data(call, message(pb.WorkerMessage(hello=hello).SerializeToString()), patience=0)
        ahead = (number + 1) / 1000 - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    print(f"{count / (time.monotonic() - began):.0f} reconnects a second")
    site.federation.until(
        lambda: {each.worker for each in site.federation.status().workers} == {"alpha", "beta"},
        "everybody who left is seen out",
    )
    assert site.federation.metric("ssd_coordinator_memory_peak_bytes") - before < 64 << 20
    site.well()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()


def test_a_wall_clock_that_jumps_by_years_changes_nothing(tmp_path: Path) -> None:
    """Deadlines, silence and heartbeats are monotonic; the wall is for people to read."""
    fault = ["swap:coordinator.app:SystemClock=processes.jumping_clock:JumpingClock"]
    changes = {"run.mode": "elastic", "round.deadline_seconds": 300.0, "round.cohort_size": 4}
    with Site(tmp_path, fault=fault, open_round=False, **changes) as site:
        for number in (1, 2):
            task = site.alpha.expect("train")
            assert task.round == number
            assert task.upload_within_seconds > 0
            site.alpha.contribute(task)
        site.federation.until(lambda: site.federation.status().version.number == 2, "both rounds commit")
        store = site.federation.store()
        try:
            walls = [version.committed_at for version in store.versions()]
        finally:
            store.close()
        assert max(walls) - min(walls) > 86400, "the clock did not jump"
        assert site.federation.metric("ssd_coordinator_rounds_total", outcome="abandoned") == 0
        assert site.alpha.status is None
        for record in site.federation.coordinator.events("round_committed"):
            assert 0 <= record["seconds"] < 300
        site.ends_cleanly()
