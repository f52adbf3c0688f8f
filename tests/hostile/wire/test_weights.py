"""A client that lies about its weight, over real TLS: refused where others are known, and told of where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from processes.federation import Federation
from ssd_proto.v1 import federation_pb2 as pb
from wire.hostile import CLIENTS, SETTINGS, Site
from wire.raw_worker import RawWorker

pytestmark = pytest.mark.e2e
HEAVIEST = "ssd_coordinator_heaviest_client_weight_ratio"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, **{"limits.max_weight_ratio": 20.0}) as site:
        yield site


def test_one_liar_is_refused_once_the_others_are_known(site: Site) -> None:
    client = site.cohort[0]
    assert 0 < site.federation.metric(HEAVIEST) < 1
    for weight in (65536, 20_000):
        wrong = site.envelope(client, clients=[pb.WeightedClient(client=client, weight=weight)])
        site.refuses_upload(
            lambda wrong=wrong: site.submit(site.alpha, wrong, site.honest[client][0]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "weight_out_of_range",
        )
    site.check_end()


def contribute(worker: RawWorker, task: pb.Train, client: str, weight: int) -> None:
    body, _ = worker.train(task, client)
    verdict, code, reason = worker.submit(worker.envelope(task, {client: weight}, body), body)
    assert verdict is not None, (code, reason)
    assert verdict.fate == pb.Verdict.FATE_ACCEPTED, (verdict, code, reason)


def test_one_that_has_most_of_a_round_is_seen(tmp_path: Path) -> None:
    settings = {**SETTINGS, "round.cohort_size": 4, "run.rounds": 2}
    with Federation(tmp_path, **settings) as federation:
        federation.start_coordinator()
        with federation.raw_worker("w", CLIENTS) as worker:
            worker.attend().learn()
            task = worker.expect("train")
            for client in CLIENTS:
                contribute(worker, task, client, 14 if client == CLIENTS[0] else 1)
            federation.until(lambda: federation.status().version.number == 1, "the round commits")
            assert federation.metric(HEAVIEST) == pytest.approx(14 / 17)
