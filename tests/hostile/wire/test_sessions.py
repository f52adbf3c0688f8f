"""Workers that lie about who they are, take what is others', fall silent, or do not listen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from ssd_proto.v1 import federation_pb2 as pb
from wire.hostile import Site
from wire.raw_worker import RawWorker
from wire.wire_calls import FEDERATION, Outcome, as_bytes, ask

pytestmark = pytest.mark.e2e
Code = grpc.StatusCode
INSTANCE = "a" * 32


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # One of its workers falls behind by thousands of messages, which at the usual pace takes a while.
    with Site(
        tmp_path_factory.mktemp("sessions"), insecure=True, **{"limits.messages_per_second": 10_000.0}
    ) as site:
        yield site


def hello(**changes: Any) -> pb.WorkerMessage:
    """The hello of a worker without clients, proper but for the changes."""
    fields = {"protocol_min": 1, "protocol_max": 1, "worker": "mallory", "instance": INSTANCE, "build": "x"}
    return pb.WorkerMessage(hello=pb.Hello(**{**fields, **changes}))


def attending(site: Site, *messages: Any) -> Callable[[], Outcome]:
    return lambda: site.attend(messages)


def hosting(*clients: str, record: int = 0) -> list[pb.HostedClient]:
    return [pb.HostedClient(client=client, last_committed_round=record) for client in clients]


# ------------------------------------------------------------------------------------------------ the hello


@pytest.mark.parametrize(
    "first",
    [
        pb.WorkerMessage(),
        pb.WorkerMessage(heartbeat=pb.Heartbeat()),
        pb.WorkerMessage(task_failed=pb.TaskFailed(round=2, attempt=1)),
        pb.WorkerMessage(clients_changed=pb.ClientsChanged(clients=hosting("client-000"))),
        pb.WorkerMessage(evaluation_done=pb.EvaluationDone(version=1, values={"x": 1.0})),
    ],
    ids=lambda message: message.WhichOneof("kind") or "nothing",
)
def test_a_first_message_that_is_no_hello(site: Site, first: pb.WorkerMessage) -> None:
    site.refuses("attend", attending(site, first), Code.FAILED_PRECONDITION, "wrong_order")


def test_a_second_hello(site: Site) -> None:
    site.refuses("attend", attending(site, hello(), hello()), Code.FAILED_PRECONDITION, "wrong_order")


@pytest.mark.parametrize("protocol", [(2, 9), (0, 0), (9, 1), (2**32 - 1, 2**32 - 1)])
def test_a_protocol_nobody_here_speaks(site: Site, protocol: tuple[int, int]) -> None:
    message = hello(protocol_min=protocol[0], protocol_max=protocol[1])
    site.refuses("attend", attending(site, message), Code.FAILED_PRECONDITION, "protocol_version")


NAMES = [
    "",
    ".." + "/../x",
    "/etc/passwd",
    "a b",
    "a\n",
    "a\0b",
    "wörker",
    "\u202eevil",
    "a" * 129,
    "x" * (1 << 20),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_are_no_names(site: Site, name: str) -> None:
    for message in (hello(worker=name), hello(instance=name), hello(clients=hosting(name))):
        site.refuses("attend", attending(site, message), Code.INVALID_ARGUMENT, "bad_name")


def test_lists_of_clients_that_are_no_lists_of_clients(site: Site) -> None:
    twice = hello(clients=hosting("client-000", "client-000"))
    site.refuses("attend", attending(site, twice), Code.INVALID_ARGUMENT, "bad_name")
    crowd = hello(clients=hosting(*(f"c{index}" for index in range(100_001))))
    site.refuses("attend", attending(site, crowd), Code.INVALID_ARGUMENT, "bad_name")
    unknown = hello(clients=hosting("client-004"))
    site.refuses("attend", attending(site, unknown), Code.NOT_FOUND, "client_unknown")
    claimed = hello(clients=hosting(site.cohort[0]))
    site.refuses("attend", attending(site, claimed), Code.ALREADY_EXISTS, "client_claimed")


def test_a_hello_full_of_absurd_records_is_taken_at_no_more_than_its_word(site: Site) -> None:
    huge = 2**64 - 1
    held = [
        pb.HeldUpdate(client=client, round=number, base_digest="../x", task_digest="é" * 1000)
        for client in (*site.cohort, "nobody")
        for number in (0, 1, 2, huge)
    ]
    message = hello(run_id="another", versions_held=[0, huge], held_updates=held, build="b" * 100_000)
    with RawWorker(site.address, "mallory", []) as mallory:
        mallory.attend(message)
        assert mallory.welcome is not None
        assert {each.fate for each in mallory.welcome.held_fates} == {pb.HeldFate.FATE_DISCARDED}
        assert not mallory.welcome.reinitialise
    gone(site, "mallory")


def crowd(count: int, *, more: bool = True) -> pb.WorkerMessage:
    held = [pb.HeldUpdate(client=f"c{index}", round=1) for index in range(count)]
    return pb.WorkerMessage(hello=pb.Hello(held_updates=held, more=more))


def test_a_hello_in_parts_is_one_hello(site: Site) -> None:
    with RawWorker(site.address, "mallory", []) as mallory:
        impostor = crowd(3)
        impostor.hello.worker = "alpha"
        for part in (hello(more=True, held_updates=crowd(1).hello.held_updates), impostor):
            mallory.up.put(part)
        mallory.attend(crowd(4, more=False))
        assert mallory.welcome is not None
        assert len(mallory.welcome.held_fates) == 8
        assert "mallory" in {each.worker for each in site.federation.status().workers}
    gone(site, "mallory")


def test_a_hello_that_does_not_end(site: Site) -> None:
    other = pb.WorkerMessage(heartbeat=pb.Heartbeat())
    first = hello(more=True)
    site.refuses("attend", attending(site, first, other), Code.FAILED_PRECONDITION, "wrong_order")
    site.refuses("attend", attending(site, first, crowd(10)), Code.DEADLINE_EXCEEDED, "silent")
    clients = hosting(*(f"client-{index:06d}" for index in range(60_000)))
    part = pb.WorkerMessage(hello=pb.Hello(clients=clients, more=True))
    site.refuses("attend", attending(site, first, part, part), Code.INVALID_ARGUMENT, "bad_name")
    many = [crowd(70_000)] * 3
    site.refuses("attend", attending(site, first, *many), Code.RESOURCE_EXHAUSTED, "message_too_large")


def test_no_hello_at_all(site: Site) -> None:
    def mute() -> Outcome:
        return site.attend(iter(()))

    site.refuses("attend", mute, Code.DEADLINE_EXCEEDED, "silent")


# ---------------------------------------------------------------------------------------- under other names


def test_a_second_worker_under_a_connected_workers_name(site: Site) -> None:
    message = hello(worker="alpha", clients=hosting(*site.alpha.clients))
    site.refuses("attend", attending(site, message), Code.ALREADY_EXISTS, "worker_name_taken")
    # The first one goes on undisturbed: its stream, its session, its clients.
    assert site.alpha.status is None
    assert site.alpha.welcome is not None
    assert site.alpha.fetch(site.alpha.welcome.declaration.digest)
    assert "alpha" in {each.worker for each in site.federation.status().workers}


def test_the_newest_stream_of_a_worker_fences_the_older(site: Site) -> None:
    with RawWorker(site.address, "mallory", [], instance=INSTANCE) as older:
        older.attend()
        assert older.welcome is not None
        with (
            site.counting({("refused", "attend", "fenced"): 1}),
            RawWorker(site.address, "mallory", [], instance=INSTANCE) as newer,
        ):
            newer.attend()
            assert newer.welcome is not None
            assert older.next() is None
            assert older.status is not None
            assert older.status.code() is Code.ABORTED
            assert dict(older.status.trailing_metadata())["ssd-reason"] == "fenced"
            digest = newer.welcome.declaration.digest
            assert newer.fetch(digest)
        # The fenced stream's token opens nothing any more.
        request = pb.FetchBlobRequest(digest=digest)
        site.refuses(
            "fetch_blob",
            lambda: ask(
                older.channel, f"{FEDERATION}/FetchBlob", request, pb.BlobPart, metadata=older.metadata()
            ),
            Code.UNAUTHENTICATED,
            "no_session",
        )
    gone(site, "mallory")


def gone(site: Site, worker: str) -> None:
    site.federation.until(
        lambda: worker not in {each.worker for each in site.federation.status().workers},
        f"{worker} is seen out",
    )


def test_a_worker_that_leaves_before_its_welcome_leaves_nothing_behind(site: Site) -> None:
    """A hello that is cancelled at any moment must not keep its name and clients for ever."""
    pause = threading.Event()
    with grpc.insecure_channel(site.address) as channel:
        for number in range(300):
            call = channel.stream_stream(f"{FEDERATION}/Attend", as_bytes, pb.CoordinatorMessage.FromString)(
                iter([hello(worker=f"mallory-{number}")])
            )
            pause.wait(number % 30 * 0.0001)
            call.cancel()
    site.federation.until(
        lambda: {each.worker for each in site.federation.status().workers} == {"alpha", "beta"},
        "everybody who left is seen out",
        patience=20,
    )
    site.well()


# --------------------------------------------------------------------------------------- within the session


def test_messages_about_what_is_not_the_workers_own(site: Site) -> None:
    """None of them is worth ending the stream for, and none of them has any effect."""
    huge = 2**64 - 1
    theirs, mine = site.cohort[2], site.outsider
    before = site.federation.status().cohort
    assert not before["failed"]
    with RawWorker(site.address, "mallory", []) as mallory:
        mallory.attend(hello(capabilities=pb.Capabilities(evaluates=False, device="x" * 1000)))
        for message in (
            pb.WorkerMessage(task_failed=pb.TaskFailed(round=2, attempt=1, client=theirs, reason="lie")),
            pb.WorkerMessage(
                task_failed=pb.TaskFailed(round=2, attempt=1, reason="r" * 100_000, detail="\n" * 999)
            ),
            pb.WorkerMessage(task_failed=pb.TaskFailed(round=huge, attempt=2**32 - 1, client=mine)),
            pb.WorkerMessage(evaluation_done=pb.EvaluationDone(version=huge, values={"accuracy": 1e308})),
            pb.WorkerMessage(evaluation_done=pb.EvaluationDone(version=2, values={"é" * 9: float("nan")})),
            pb.WorkerMessage(evaluation_done=pb.EvaluationDone(version=1, error="e" * 100_000)),
            pb.WorkerMessage(
                progress=pb.Progress(round=huge, client="../x", step=huge, seconds=float("nan"))
            ),
            pb.WorkerMessage(version_held=pb.VersionHeld(number=huge, model_digest="z")),
            pb.WorkerMessage(heartbeat=pb.Heartbeat(busy_share=float("inf"), uptime_seconds=huge)),
        ):
            mallory.up.put(message)
        # Ends the stream, and proves that everything before it was read.
        with site.counting({("refused", "attend", "malformed_message"): 1}):
            mallory.up.put(pb.WorkerMessage())
            assert mallory.next() is None
        assert mallory.status is not None
        assert mallory.status.code() is Code.INVALID_ARGUMENT
    status = site.federation.status()
    assert status.cohort == before
    assert not status.evaluation
    gone(site, "mallory")


@pytest.mark.parametrize(
    ("clients", "code", "reason"),
    [
        (["{theirs}"], Code.ALREADY_EXISTS, "client_claimed"),
        (["client-00x"], Code.NOT_FOUND, "client_unknown"),
        (["../../x"], Code.INVALID_ARGUMENT, "bad_name"),
        (["client-000", "client-000"], Code.INVALID_ARGUMENT, "bad_name"),
    ],
)
def test_a_change_of_clients_is_looked_at_like_a_hello(
    site: Site, clients: list[str], code: Code, reason: str
) -> None:
    names = [name.format(theirs=site.cohort[2]) for name in clients]
    change = pb.WorkerMessage(clients_changed=pb.ClientsChanged(clients=hosting(*names)))
    site.refuses("attend", attending(site, hello(), change), code, reason)
    assert site.beta.status is None


# --------------------------------------------------------------------------------------- silent and deaf


def test_a_silent_worker_is_cut_off(site: Site) -> None:
    with RawWorker(site.address, "mallory", [], instance=INSTANCE) as mallory:
        mallory.beats = False
        mallory.attend()
        started = time.monotonic()
        with site.counting({("refused", "attend", "silent"): 1}):
            assert mallory.next() is None
        assert mallory.status is not None
        assert mallory.status.code() is Code.DEADLINE_EXCEEDED
        assert dict(mallory.status.trailing_metadata())["ssd-reason"] == "silent"
        # Three intervals of one second; how much later it is noticed is not this test's business.
        assert time.monotonic() - started > 2
    gone(site, "mallory")


def test_a_worker_that_never_reads_its_stream_is_cut_off(site: Site) -> None:
    """It has the same task sent again and again until everything between it and the coordinator is full."""
    theirs = site.cohort[2:]
    site.beta.close()
    gone(site, "beta")
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    # With the records the welcome told it to take over; others would end the stream.
    records = [pb.HostedClient(client=client, last_committed_round=site.task.round - 1) for client in theirs]
    again = as_bytes(pb.WorkerMessage(clients_changed=pb.ClientsChanged(clients=records)))
    over = threading.Event()

    def up() -> Iterator[Any]:
        yield hello(clients=hosting(*theirs))
        while not over.wait(0.0001):
            yield again

    with grpc.insecure_channel(site.address, options=options) as channel:
        call = channel.stream_stream(f"{FEDERATION}/Attend", as_bytes, pb.CoordinatorMessage.FromString)(up())
        site.federation.until(
            lambda: "mallory" in {each.worker for each in site.federation.status().workers}, "mallory attends"
        )
        gone(site, "mallory")
        # Its clients are free for a worker that listens, although the stream itself is still stuck.
        site.beta = site.worker("beta", theirs)
        over.set()
        call.cancel()
    site.well()


def test_the_round_commits_as_if_nothing_had_happened(site: Site) -> None:
    site.check_end()
