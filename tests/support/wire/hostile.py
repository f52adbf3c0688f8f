"""A coordinator with an open round, honest workers on it, and the means to be hostile to it and see what it says."""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from processes.federation import Federation
from ssd_proto.v1 import federation_pb2 as pb
from wire.raw_worker import RawWorker
from wire.wire_calls import FEDERATION, Outcome, Upload, changed, stream

CLIENTS = [f"client-{index:03d}" for index in range(4)]
ROUNDS = 2
SETTINGS: dict[str, Any] = {
    "run.clients": CLIENTS,
    "run.rounds": ROUNDS,
    "run.when_done": "serve",
    "round.cohort_size": 3,
    "round.max_client_failures": 1_000_000,
    "method.config": {"parameters": 20000},
    "limits.max_weight_ratio": 0,  # an update may be as heavy as the plan allows
}
"""Three of four clients a round, so one is always outside the cohort; a bad update never halts the run."""

UPDATES = "ssd_coordinator_updates_total"
REFUSED = "ssd_coordinator_messages_refused_total"


Counts = dict[tuple[str, ...], float]


class Site:
    """A federation in the middle of its last round; `alpha` hosts two clients of the cohort, `beta` the third.

    Calls are made by hand, under TLS unless it is `insecure=True`.
    With `open_round=False` it is at its very beginning and `alpha` hosts everybody. `fault` is for `faulty.py`.
    """

    def __init__(
        self,
        root: Path,
        *,
        open_round: bool = True,
        insecure: bool = False,
        fault: Sequence[str] = (),
        **changes: Any,
    ) -> None:
        self._fault = fault
        self.settings = {**SETTINGS, **changes}
        self.federation = Federation(root, insecure=insecure, **self.settings)
        self.address = self.federation.address
        self.open_round = open_round
        self.honest: dict[str, tuple[bytes, int]] = {}
        self.contributed: set[str] = set()
        self.workers: list[RawWorker] = []

    def __enter__(self) -> Site:
        self.federation.start_coordinator(fault=self._fault)
        if self._fault:
            self.federation.until(self._listens, "the coordinator listens")
        if not self.open_round:
            self.alpha = self.worker("alpha", CLIENTS)
            return self
        with self.federation.raw_worker("probe", CLIENTS) as probe:
            probe.attend().learn()
            probe.contribute(probe.expect("train"))
            second = probe.expect("train")
            # Trained once: a client's state advances with every training.
            self.honest = {each.client: probe.train(second, each.client) for each in second.clients}
        self.cohort = sorted(self.honest)
        (self.outsider,) = set(CLIENTS) - set(self.cohort)
        self.federation.move([*self.cohort[:2], self.outsider], to="alpha")
        self.federation.move(self.cohort[2:], to="beta")
        self.alpha = self.worker("alpha", [*self.cohort[:2], self.outsider])
        self.beta = self.worker("beta", self.cohort[2:])
        self.task = self.alpha.expect("train")
        self.beta.expect("train")
        return self

    def _listens(self) -> bool:
        assert self.federation.coordinator is not None
        return bool(self.federation.coordinator.events("listening"))

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()
        self.federation.__exit__()

    def worker(self, name: str, clients: list[str], **changes: Any) -> RawWorker:
        """An honest worker, attending; the coordinator may still believe that another one hosts its clients."""
        patience = threading.Event()
        for _ in range(200):
            worker = self.federation.raw_worker(name, clients, **changes)
            worker.attend()
            if worker.welcome is not None:
                self.workers.append(worker)
                return worker.learn()
            worker.close()
            patience.wait(0.05)
        raise AssertionError(f"{name} could not attend: {worker.status}")

    def envelope(self, client: str, body: bytes | None = None, **changes: Any) -> pb.Envelope:
        """An honest envelope but for the changes."""
        mine, weight = self.honest[client]
        envelope = self.alpha.envelope(self.task, {client: weight}, mine if body is None else body)
        return changed(envelope, **changes)

    def contribute(self, worker: RawWorker, client: str) -> None:
        body, _ = self.honest[client]
        verdict, code, reason = worker.submit(self.envelope(client), body)
        assert verdict is not None, (client, code, reason)
        assert verdict.fate == pb.Verdict.FATE_ACCEPTED, (client, verdict)
        self.contributed.add(client)

    # ------------------------------------------------------------------------------------------ asking

    def counts(self) -> Counts:
        """Both counters of what was not taken, as {(metric, labels...): value}."""
        found: Counts = {}
        for family in text_string_to_metric_families(self.federation.http("/metrics")[1]):
            for sample in family.samples:
                if sample.name == UPDATES:
                    found["updates", sample.labels["fate"], sample.labels["reason"]] = sample.value
                elif sample.name == REFUSED:
                    found["refused", sample.labels["call"], sample.labels["reason"]] = sample.value
        return found

    def well(self) -> None:
        """The coordinator runs, answers, is ready and still in the round."""
        assert self.federation.coordinator is not None
        assert self.federation.coordinator.running, self.federation.coordinator.log.read_text()[-4000:]
        status = self.federation.status()
        assert (status.phase, status.round) == ("training", ROUNDS), status
        assert self.federation.http("/readyz")[0] == 200

    @contextlib.contextmanager
    def counting(self, expected: Mapping[tuple[str, ...], int]) -> Iterator[None]:
        """Exactly these counters grow, by exactly this much, and the coordinator is well afterwards."""
        before = self.counts()
        yield
        after = self.counts()
        grown = {key: value - before.get(key, 0) for key, value in after.items()}
        assert {key: int(value) for key, value in grown.items() if value} == dict(expected)
        self.well()

    def refuses_upload(
        self,
        send: Callable[[], Outcome],
        code: grpc.StatusCode,
        reason: str,
        *,
        fate: str = "rejected",
        verdict: bool = True,
    ) -> Outcome:
        """`send` is refused like this, with a verdict that says the same, and counted once in both counters."""
        with self.counting({("updates", fate, reason): 1, ("refused", "submit_update", reason): 1}):
            outcome = send()
        assert (outcome.code, outcome.reason) == (code, reason), outcome
        assert outcome.detail
        if verdict:
            assert outcome.verdict is not None, outcome
            assert outcome.verdict.reason == reason
            assert pb.Verdict.Fate.Name(outcome.verdict.fate) == f"FATE_{fate.upper()}"
        else:
            assert outcome.verdict is None
        return outcome

    def refuses(self, call: str, send: Callable[[], Outcome], code: grpc.StatusCode, reason: str) -> Outcome:
        """A call that is no upload is refused like this and counted once."""
        with self.counting({("refused", call, reason): 1}):
            outcome = send()
        assert (outcome.code, outcome.reason) == (code, reason), outcome
        assert outcome.detail
        return outcome

    # ----------------------------------------------------------------------------------------- sending

    def submit(self, worker: RawWorker, envelope: Any, body: bytes) -> Outcome:
        """A whole upload, as a worker does it."""
        upload = Upload(worker, envelope)
        if upload.proceeded():
            upload.send_body(body)
        return upload.outcome()

    def upload(self, worker: RawWorker, messages: Iterable[Any], **how: Any) -> Outcome:
        """Upload parts as they are, without waiting for `proceed`."""
        how.setdefault("metadata", worker.metadata())
        return stream(worker.channel, f"{FEDERATION}/SubmitUpdate", messages, pb.UploadReply, **how)

    def attend(self, messages: Iterable[Any], channel: grpc.Channel | None = None) -> Outcome:
        """An Attend stream that sends these messages and waits for the end."""
        return stream(
            channel or self.alpha.channel,
            f"{FEDERATION}/Attend",
            messages,
            pb.CoordinatorMessage,
            keep_open=True,
        )

    # ------------------------------------------------------------------------------------------ the end

    def finish(self) -> list[str]:
        """Contribute what is missing; the digests of every version."""
        for client in self.cohort:
            if client not in self.contributed:
                worker = self.alpha if client in self.alpha.clients else self.beta
                body, _ = self.honest[client]
                verdict, code, reason = worker.submit(self.envelope(client), body)
                assert verdict is not None, (client, code, reason)
                # A fuzzer may have sent an honest update by chance; the digest tells whether it was one.
                if verdict.fate != pb.Verdict.FATE_ACCEPTED:
                    assert verdict.reason in ("duplicate", "too_late"), (client, verdict)
        self.federation.until(lambda: self.federation.status().version.number == ROUNDS, "the round commits")
        return self.federation.digests()

    def check_end(self) -> None:
        """The round commits with the digest of an undisturbed run and the coordinator ends cleanly."""
        self.well()
        assert self.finish() == reference(self.settings)
        self.ends_cleanly()

    def ends_cleanly(self) -> None:
        """The run is finished, and the coordinator stops without a complaint of any library in its log."""
        self.federation.until(lambda: self.federation.status().phase == "finished", "the run finishes")
        coordinator = self.federation.coordinator
        assert coordinator is not None
        assert coordinator.terminate() == 0
        complaints = [each for each in coordinator.events("message") if not _harmless(each)]
        assert not complaints, complaints
        # gRPC prints what it remarks a second time, past the log; a line of ours there would be a crash.
        stray = [line for line in coordinator.log.read_text().splitlines() if not line.startswith("{")]
        assert not [line for line in stray if "coordinator" in line], stray


def _harmless(complaint: Mapping[str, Any]) -> bool:
    """A library's remark that a peer did wrong: a call cancelled before its handler began, a request that is no HTTP."""
    traceback = complaint.get("traceback", "")
    if "coordinator/" in traceback:
        return False
    return traceback.endswith("asyncio.exceptions.CancelledError") or "aiohttp.http_exceptions." in traceback


def reference(settings: Mapping[str, Any]) -> list[str]:
    """The digests of an undisturbed run of this configuration and seed; every version. Made once a session."""
    return _reference(
        json.dumps(
            {key: settings[key] for key in sorted(settings) if not key.startswith(("limits.", "enrolment."))}
        )
    )


@functools.cache
def _reference(settings: str) -> list[str]:
    with tempfile.TemporaryDirectory() as root:
        return undisturbed(Path(root), json.loads(settings))


def undisturbed(root: Path, settings: Mapping[str, Any]) -> list[str]:
    """Run to the end with one honest worker."""
    with Federation(root, **{**settings, "run.when_done": "exit"}) as federation:
        federation.start_coordinator()
        clients = settings["run.clients"]
        with federation.raw_worker("honest", clients) as worker:
            worker.attend().learn()
            for _ in range(settings["run.rounds"]):
                worker.contribute(worker.expect("train"))
            assert federation.finish() == 0
        return federation.digests()
