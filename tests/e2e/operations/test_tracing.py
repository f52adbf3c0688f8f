"""Traces of a real federation at a real OTLP receiver; without tracing nobody loads it, and a dead one costs nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from processes.otlp_collector import Collector, Received
from processes.pki import Pki
from ssd.daemon.tracing.context import SpanContext, attempt_context, client_context
from ssd.daemon.tracing.setup import open_exporter
from ssd.daemon.tracing.spans import OpenSpan

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index}" for index in range(4)]
ROUNDS = 2
SERVER, CLIENT = 2, 3
"""Kinds of spans, in OpenTelemetry's numbers."""
SETTINGS: dict[str, Any] = {
    "run.clients": CLIENTS,
    "run.rounds": ROUNDS,
    "round.cohort_size": len(CLIENTS),
    "method.config": {"parameters": 5000},
}


def run(root: Path, groups: dict[str, list[str]], endpoint: str) -> Federation:
    """A finished federation; `endpoint` is everybody's, empty: without tracing."""
    root.mkdir()
    traced = {"tracing.endpoint": endpoint} if endpoint else {}
    with Federation(root, **SETTINGS, **traced) as federation:
        federation.start_coordinator()
        for name, clients in groups.items():
            federation.start_worker(name, clients, config=traced)
        assert federation.finish() == 0
        for worker in federation.workers.values():
            worker.terminate()
    return federation


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, Collector]]:
    collector = Collector()
    groups = {"alone": CLIENTS[:1], "folding": CLIENTS[1:]}
    yield run(tmp_path_factory.mktemp("traced") / "run", groups, f"http://{collector.address}"), collector
    collector.close()


@pytest.fixture(scope="module")
def untraced(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    with pytest.MonkeyPatch.context() as patch:
        # Every module that is imported, with its time, on standard error.
        patch.setenv("PYTHONPROFILEIMPORTTIME", "1")
        return run(tmp_path_factory.mktemp("untraced") / "run", {"all": CLIENTS}, "")


def one(spans: list[Received]) -> Received:
    (found,) = spans
    return found


def test_the_tree_of_every_round(traced: tuple[Federation, Collector]) -> None:
    federation, collector = traced
    run_id = federation.store().current_run().run_id
    for number in range(1, ROUNDS + 1):
        root = attempt_context(run_id, number, 1)
        spans = [span for span in collector.spans if span.trace == root.trace_id]
        assert len({span.id for span in spans}) == len(spans)
        check_round(spans, root, number)
    assert {span.trace for span in collector.spans} == {
        attempt_context(run_id, number, 1).trace_id for number in range(1, ROUNDS + 1)
    }


def check_round(spans: list[Received], root: SpanContext, number: int) -> None:
    def named(name: str, **facts: Any) -> list[Received]:
        return [span for span in spans if span.name == name and facts.items() <= span.attributes.items()]

    whole = one(named("round"))
    assert (whole.id, whole.parent, whole.service) == (root.span_id, "", "ssd-coordinator")
    assert whole.attributes["ssd.round"] == number
    assert (whole.attributes["ssd.outcome"], whole.attributes["ssd.accepted"]) == ("committed", 4)
    training, committing = one(named("training")), one(named("committing"))
    assert (training.parent, committing.parent) == (whole.id, whole.id)
    assert whole.start <= training.start <= training.end <= committing.start <= committing.end <= whole.end
    assert [one(named(part)).parent for part in ("open_sum", "make_version")] == [committing.id] * 2

    tasks = {client: one(named("client_task", **{"ssd.client": client})) for client in CLIENTS}
    for client, task in tasks.items():
        assert (task.id, task.parent) == (client_context(root, client).span_id, training.id)
        assert task.attributes["ssd.outcome"] == "accepted"
    trained = {span.instance: span for span in named("train")}
    assert {span.service for span in trained.values()} == {"ssd-worker"}
    assert (trained["alone"].parent, trained["alone"].attributes["ssd.client"]) == (
        tasks["client-0"].id,
        "client-0",
    )
    # Clients that are trained together share a span, which is linked to the task of each.
    assert trained["folding"].parent == training.id
    assert trained["folding"].links == tuple(tasks[client].id for client in CLIENTS[1:])
    assert trained["folding"].attributes["ssd.clients"] == 3

    for prepare in named("prepare"):
        assert (prepare.parent, prepare.error) == (training.id, "")
    assert {span.instance for span in named("prepare")} == {"alone", "folding"}

    uploads = {span.instance: span for span in named("upload")}
    assert uploads["alone"].parent == tasks["client-0"].id
    assert uploads["folding"].parent == training.id
    assert uploads["folding"].links == tuple(tasks[client].id for client in CLIENTS[1:])

    for method, work in (("FetchBlob", named("prepare")), ("SubmitUpdate", named("upload"))):
        calls = named(f"ssd_proto.v1.Federation/{method}")
        sent = {span.id: span for span in calls if span.kind == CLIENT}
        taken = [span for span in calls if span.kind == SERVER]
        assert len(sent) == len(taken) >= 2
        assert {span.parent for span in sent.values()} == {span.id for span in work}
        assert {span.parent for span in taken} == set(sent)
        for span in taken:
            assert (span.service, sent[span.parent].service) == ("ssd-coordinator", "ssd-worker")
            assert span.attributes["ssd.worker"] == sent[span.parent].instance
            assert span.attributes["ssd.bytes"] == sent[span.parent].attributes["ssd.bytes"]


def test_traces_hold_no_secret_and_no_data(traced: tuple[Federation, Collector]) -> None:
    federation, collector = traced
    known = {
        "ssd.run", "ssd.round", "ssd.attempt", "ssd.mode", "ssd.cohort", "ssd.accepted", "ssd.outcome", "ssd.version",
        "ssd.client", "ssd.clients", "ssd.worker", "ssd.bytes", "ssd.offset", "ssd.masked",
        "rpc.system.name", "rpc.service", "rpc.method",
    }  # fmt: skip
    assert {key for span in collector.spans for key in span.attributes} == known
    for secret in (str(federation.root).encode(), b"BEGIN", federation.address.encode()):
        assert secret not in collector.raw


def test_without_tracing_nobody_loads_opentelemetry(
    untraced: Federation, traced: tuple[Federation, Collector]
) -> None:
    for name in ("coordinator", "all"):
        text = (untraced.root / f"{name}.log").read_text()
        assert "import time:" in text
        assert "grpc" in text
        assert "opentelemetry" not in text
    assert traced[0].digests() == untraced.digests()


def test_a_dead_collector_changes_nothing(tmp_path: Path, untraced: Federation) -> None:
    # It takes the connection and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
        federation = run(tmp_path / "run", {"all": CLIENTS}, endpoint)
    assert federation.digests() == untraced.digests()
    assert federation.coordinator is not None
    assert not federation.coordinator.events("forced")


def test_a_collector_that_speaks_tls(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    (tmp_path / "roots.pem").write_bytes(pki.authority)
    own = pki.server_credentials_without_clients()
    collector = Collector(own)
    endpoint = f"https://localhost:{collector.address.rpartition(':')[2]}"
    span = OpenSpan("round", attempt_context("run", 1, 1), None, 1).end(2)
    resource = {"service.name": "s", "service.instance.id": "i"}
    try:
        for roots, arrived in ((None, 0), (tmp_path / "roots.pem", 1)):
            exporter = open_exporter(endpoint, roots, resource)
            exporter.emit(span)
            exporter.close()
            assert len(collector.spans) == arrived
    finally:
        collector.close()
