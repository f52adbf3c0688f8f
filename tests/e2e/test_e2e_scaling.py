"""A client's scaling vector is its own for ever: across restarts, hosts, arrival order and partial participation."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation import Federation
from raw_worker import RawWorker
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
        address = f"127.0.0.1:{federation.port}"
        sent: dict[str, set[tuple[int, ...]]] = {client: set() for client in CLIENTS}

        def rounds(count: int) -> None:
            """Some rounds hosted by one hand-made worker; remembers every vector it is sent."""
            # The order in which clients are named must not matter.
            with RawWorker(address, "w", list(reversed(CLIENTS)), instance="1" * 32) as worker:
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
        address = f"127.0.0.1:{federation.port}"
        seen = {}
        for name, instance in (("here", "1" * 32), ("there", "2" * 32)):
            with RawWorker(address, name, CLIENTS, instance=instance) as worker:
                worker.attend().learn()
                for _ in range(6):
                    task = worker.expect("train")
                    for each in task.clients:
                        seen.setdefault(each.client, set()).add(tuple(each.scaling.indices))
                    worker.contribute(task)
                    worker.expect("committed")
            federation.until(lambda: federation.status().connected_clients == 0, "the worker is gone")
        assert all(len(each) == 1 for each in seen.values())
