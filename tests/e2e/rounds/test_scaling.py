"""A client's scaling vector is its own for ever: across restarts, hosts, arrival order and partial participation."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes.federation import Federation
from ssd_proto.v1 import operator_pb2 as operator_pb

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(10)]
SETTINGS = {
    "run.clients": CLIENTS,
    "run.rounds": 12,
    "run.when_done": "serve",
    "round.cohort_size": 3,
    "method.config": {"parameters": 2000, "scaling": {"dimension": 64, "alpha": 10.0}},
}


def vectors(federation: Federation) -> dict[str, tuple[int, tuple[int, ...], float]]:
    reply = federation.operator("Clients", operator_pb.ClientsRequest(), operator_pb.ClientsReply)
    return {
        each.client: (each.index, tuple(each.scaled_dimensions), each.alpha)
        for each in reply.clients
        if each.index >= 0
    }


def test_vectors_are_disjoint_persistent_and_follow_the_client(tmp_path: Path) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator()
        sent: dict[str, set[tuple[int, ...]]] = {client: set() for client in CLIENTS}

        def rounds(count: int) -> None:
            """Some rounds hosted by one hand-made worker; remembers every vector it is sent."""
            # The order in which clients are named must not matter.
            with federation.raw_worker("w", list(reversed(CLIENTS)), instance="1" * 32) as worker:
                worker.attend().learn()
                done = 0
                while done < count:
                    message = worker.next()
                    if message.WhichOneof("kind") == "train":
                        for each in message.train.clients:
                            sent[each.client].add(tuple(each.scaling.indices))
                        worker.contribute(message.train)
                    elif message.WhichOneof("kind") == "committed":
                        done += 1

        rounds(5)
        first = vectors(federation)
        assert {client: index for client, (index, _, _) in first.items()} == {
            client: rank for rank, client in enumerate(CLIENTS)
        }
        dimensions = [dimension for _, scaled, _ in first.values() for dimension in scaled]
        assert len(dimensions) == len(set(dimensions)) == 60, "ten clients share no dimension of 64"
        federation.coordinator.kill()
        federation.start_coordinator()
        assert vectors(federation) == first
        rounds(5)
        assert vectors(federation) == first
        participated = {client for client, seen in sent.items() if seen}
        assert len(participated) > 3, "partial participation reached several clients"
        for client in participated:
            assert sent[client] == {first[client][1]}, "a vector followed the place in the cohort"


def test_a_client_keeps_its_vector_when_it_moves_to_another_worker(tmp_path: Path) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator()
        seen = {}
        for name, instance in (("here", "1" * 32), ("there", "2" * 32)):
            federation.move(CLIENTS if seen else (), to=name)
            with federation.raw_worker(name, CLIENTS, instance=instance) as worker:
                worker.attend().learn()
                for _ in range(6):
                    task = worker.expect("train")
                    for each in task.clients:
                        seen.setdefault(each.client, set()).add(tuple(each.scaling.indices))
                    worker.contribute(task)
                    worker.expect("committed")
            federation.until(lambda: federation.status().connected_clients == 0, "the worker is gone")
        assert all(len(each) == 1 for each in seen.values())


BY_POSITION = {
    **SETTINGS,
    "run.rounds": 5,
    "run.when_done": "exit",
    "method.config": {
        "parameters": 2000,
        "scaling": {"dimension": 64, "alpha": 10.0, "assignment": "position"},
    },
}


def test_vectors_by_position_stay_with_their_positions_through_kills_and_hosts(tmp_path: Path) -> None:
    digests = {}
    for name, groups, fault in (
        ("quiet", [CLIENTS], ()),
        (
            "killed",
            [CLIENTS[::2], CLIENTS[1::2]],
            ("coordinator.uploads.verification:UploadVerification.answer", "after", "4"),
        ),
        ("closed", [CLIENTS], ("coordinator.store.journal.sqlite:SqliteJournal.close_attempt", "after", "3")),
    ):
        (tmp_path / name).mkdir()
        with Federation(tmp_path / name, **BY_POSITION) as federation:
            daemon = federation.start_coordinator(fault=fault)
            for number, clients in enumerate(groups):
                federation.start_worker(f"w{number}", clients)
            if fault:
                federation.until(lambda: not daemon.running, "the coordinator dies")  # noqa: B023
                federation.start_coordinator()
            assert federation.finish() == 0
            digests[name] = federation.digests()
            store = federation.store()
            assert {record.scaling for record in store.clients()} == {None}
            store.close()
    assert digests["quiet"] == digests["killed"] == digests["closed"]
    (tmp_path / "by client").mkdir()
    own = {"parameters": 2000, "scaling": {"dimension": 64, "alpha": 10.0}}
    with Federation(tmp_path / "by client", **{**BY_POSITION, "method.config": own}) as federation:
        federation.start_coordinator()
        federation.start_worker("w0", CLIENTS)
        assert federation.finish() == 0
        assert federation.digests()[1] != digests["quiet"][1], "the vectors do not matter to this method"


def test_vectors_by_position_are_refused_in_an_elastic_run(tmp_path: Path) -> None:
    with Federation(tmp_path, **{**BY_POSITION, "run.mode": "elastic"}) as federation:
        daemon = federation.start_coordinator(wait=False)
        assert daemon.wait() != 0
        assert "set run.mode = reproducible" in (tmp_path / "coordinator.log").read_text()
