"""The session machine: properties over random histories."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rounds.session_machine import RUN, on_clients, train, verdict, version, welcome
from ssd_wire import messages
from ssd_wire.messages import HeldFate, Train
from ssd_wire.uploads import UploadFate
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.session import step
from worker.core.state import Link, Session


class History(RuleBasedStateMachine):
    """Any order of events a coordinator, a training process and a network can produce."""

    clients = "abc"

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(clients=dict.fromkeys(self.clients, 0), run_id=RUN)
        self.number = 0
        self.attempt = 0
        self.sessions = 0
        self.accepted: set[tuple[int, int, int, str]] = set()
        self.included: dict[str, set[int]] = {client: set() for client in self.clients}
        self.promoted: list[tuple[str, int]] = []
        self.kept: set[messages.UpdateKey] = set()
        self.uploading: effects.StartUpload | None = None
        self.last_task: Train | None = None
        self.tasks: dict[tuple[int, int, int], str] = {}
        """(session, round, attempt) -> its task: only a coordinator that was started anew may ask for another one."""
        self.done: list[Finished] = []

    def tell(self, event: events.Event) -> None:
        self.session, out = step(self.session, event)
        for effect in out:
            self.obey(effect)

    def obey(self, effect: Effect) -> None:
        match effect:
            case effects.KeepUpdate():
                assert effect.finished.key not in self.kept, "a finished update is kept once"
                self.kept.add(effect.finished.key)
            case effects.DropUpdates():
                assert set(effect.keys) <= self.kept
                self.kept -= set(effect.keys)
            case effects.Promote():
                for key in effect.keys:
                    assert key in self.kept, "only what is stored can be promoted"
                    assert key.round in self.included[key.client], "only a commit promotes"
                    assert (key.client, key.round) not in self.promoted, "at most once per round"
                    assert all(r < key.round for c, r in self.promoted if c == key.client), "never backwards"
                    self.promoted.append((key.client, key.round))
                    self.kept.remove(key)
            case effects.StartUpload():
                assert self.session.link is Link.ATTENDING
                for update in effect.updates:
                    assert update.key in self.kept, "what is uploaded is on disk"
                    mark = (self.sessions, effect.train.round, effect.train.attempt, update.key.client)
                    assert mark not in self.accepted, "no client twice in an attempt and session"
                self.uploading = effect
            case effects.StopUpload():
                self.uploading = None
            case effects.TrainClient():
                assert effect.train.key(effect.client.client) not in self.kept, (
                    "finished work is not done again"
                )

    @invariant()
    def memory_and_disk_agree(self) -> None:
        assert set(self.session.held) == self.kept

    @invariant()
    def one_update_per_client_and_round(self) -> None:
        pairs = [(key.client, key.round) for key in self.session.held]
        assert len(pairs) == len(set(pairs))

    @precondition(lambda self: self.session.link is Link.OFFLINE)
    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        self.tell(events.DialDue())
        if self.session.link is not Link.DIALLING:
            return
        fates = []
        for key in self.session.hello_held:
            if key.round in self.included[key.client]:
                fates.append(HeldFate.COMMITTED)
            elif key.round == self.number + 1:
                fates.append(data.draw(st.sampled_from([HeldFate.KEEP, HeldFate.KEEP, HeldFate.DISCARDED])))
            else:
                fates.append(HeldFate.DISCARDED)
        self.sessions += 1
        self.tell(welcome(self.number, tuple(fates)))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule()
    def lose(self) -> None:
        self.uploading = None
        self.tell(events.LinkLost(reason="unavailable"))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule(
        clients=st.sets(st.sampled_from("abc"), min_size=1), fresh=st.booleans(), task=st.sampled_from("ttu")
    )
    def ask(self, clients: set[str], fresh: bool, task: str) -> None:
        self.attempt += 1 if fresh or self.attempt == 0 else 0
        task = self.tasks.setdefault((self.sessions, self.number, self.attempt), task)
        self.last_task = train("".join(sorted(clients)), self.number, self.attempt, task)
        self.tell(self.last_task)

    @rule(ok=st.sampled_from([True, True, True, False]), retry=st.booleans())
    def prepare(self, ok: bool, retry: bool) -> None:
        work = self.session.work
        if work is None or work.stage.value != "preparing":
            return
        key = work.train.key("")
        if ok:
            self.tell(events.Prepared(key=key, number=work.train.base.number))
        else:
            self.tell(events.PrepareFailed(key=key, reason="x", detail="", retry=retry))

    @rule(outcome=st.sampled_from(["ok", "ok", "ok", "fail", "task", "stop"]))
    def child(self, outcome: str) -> None:
        job = self.session.job
        if job is None:
            return
        if job.key is not None and outcome == "ok":
            made = Finished(key=job.key, weight=1, seconds=1.0, body_size=8, chunk_digests=b"")
            self.tell(events.ClientTrained(finished=made))
        elif job.key is not None and outcome in {"fail", "task"} and not job.stopping:
            self.tell(events.ClientFailed(key=job.key, reason="x", detail="", whole_task=outcome == "task"))
        elif job.version is not None and not job.stopping:
            self.tell(events.EvaluationEnded(version=job.version))
        if self.session.job is not None and self.session.job.stopping:
            self.tell(events.TrainingStopped())

    @precondition(lambda self: self.uploading is not None)
    @rule(
        fate=st.sampled_from(
            ["accepted", "accepted", "duplicate", "too_late", "rejected", "broken", "left_out"]
        )
    )
    def judge(self, fate: str) -> None:
        upload = self.uploading
        assert upload is not None
        if fate == "left_out":
            bad = {upload.updates[0].key: ("over_norm", "x")}
            self.uploading = None
            self.tell(events.UploadLeftOut(upload=upload.upload, failures=bad))
            rest = upload.updates[1:]
            # Another upload may have begun; otherwise this one goes on without the bad client.
            if self.uploading is None and rest:
                self.uploading = replace(upload, updates=rest)
            return
        self.uploading = None
        if fate == "broken":
            self.tell(events.UploadBroken(upload=upload.upload))
            return
        kind, reason = {
            "accepted": (UploadFate.ACCEPTED, ""),
            "duplicate": (UploadFate.DISCARDED, "duplicate"),
            "too_late": (UploadFate.DISCARDED, "too_late"),
            "rejected": (UploadFate.REJECTED, "over_norm"),
        }[fate]
        if fate == "accepted":
            for update in upload.updates:
                mark = (self.sessions, upload.train.round, upload.train.attempt, update.key.client)
                self.accepted.add(mark)
        self.tell(verdict(upload.upload, kind, reason))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule()
    def hurry(self) -> None:
        self.tell(messages.Flush(round=self.number + 1, attempt=self.attempt))

    @rule(heard=st.booleans())
    def commit(self, heard: bool) -> None:
        """Clients the coordinator has folded in this attempt are included; the news may be lost with the stream."""
        included = tuple(
            sorted({c for s, r, a, c in self.accepted if r == self.number + 1 and a == self.attempt})
        )
        self.number += 1
        self.attempt = 0
        for client in included:
            self.included[client].add(self.number)
        if self.session.link is not Link.ATTENDING:
            return
        if heard:
            self.uploading = None
            news = messages.Committed(round=self.number, version=version(self.number), included=included)
            self.tell(news)
        else:
            self.lose()

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule(clients=st.sampled_from(["", "a", "abc"]))
    def evaluate(self, clients: str) -> None:
        self.tell(on_clients(self.number, clients))

    @precondition(lambda self: self.session.link is Link.ATTENDING)
    @rule()
    def cancel(self) -> None:
        self.uploading = None
        self.tell(messages.Cancel(round=self.number + 1, attempt=self.attempt, reason="x"))


TestHistory = History.TestCase


TestHistory.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
