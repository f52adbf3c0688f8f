"""A session machine that is fed with events: welcomes, tasks, verdicts, and what it does about them."""

from __future__ import annotations

from dataclasses import replace

from ssd_wire import messages
from ssd_wire.messages import BlobRef, HeldFate, ModelVersion, TaskClient, Train
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import events
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.session import step
from worker.core.state import Session

RUN = "run-1"


def version(number: int) -> ModelVersion:
    return ModelVersion(number=number, model_digest=f"{number:064x}", full=BlobRef(digest="f" * 64, size=4))


def welcome(number: int = 0, fates: tuple[HeldFate, ...] = (), **changes: object) -> events.Welcomed:
    fields = {
        "protocol": 1,
        "session": "s",
        "run_id": RUN,
        "declaration": BlobRef(digest="d" * 64, size=1),
        "declaration_digest": "d" * 64,
        "held_fates": fates,
        "reinitialise": {},
        "data_endpoints": (),
        "heartbeat_seconds": 5.0,
        "update_encoding": "float16",
        "delta_encoding": "float16",
        "max_cohort": 10,
        "max_client_weight": 10,
        "max_upload_bytes": 100,
        "version": version(number),
    }
    return events.Welcomed(welcome=messages.Welcome(**(fields | changes)))  # type: ignore[arg-type]


def train(clients: str, number: int = 0, attempt: int = 1, task: str = "t", within: float = 0.0) -> Train:
    said = Train(
        round=number + 1,
        attempt=attempt,
        base=version(number),
        task_digest="",
        run_seed=1,
        rounds=10,
        values={task: 1.0},
        threads=1,
        clients=tuple(TaskClient(client=client) for client in clients),
        upload_within_seconds=within,
    )
    return replace(said, task_digest=said.computed_digest(RUN, "d" * 64))


def finished(task: Train, client: str) -> Finished:
    return Finished(key=task.key(client), weight=1, seconds=1.0, body_size=8, chunk_digests=b"")


class Machine:
    """A session and everything it asked for."""

    def __init__(self, clients: str = "abc") -> None:
        self.session = Session(clients=dict.fromkeys(clients, 0), run_id=RUN)
        self.out: list[Effect] = []

    def tell(self, *news: events.Event) -> list[Effect]:
        self.out = []
        for event in news:
            self.session, out = step(self.session, event)
            self.out.extend(out)
        return self.out

    def attend(self, number: int = 0, fates: tuple[HeldFate, ...] = (), **changes: object) -> list[Effect]:
        return self.tell(events.DialDue(), welcome(number, fates, **changes))

    def asked(self, kind: type) -> list[Effect]:
        return [effect for effect in self.out if type(effect) is kind]

    def ready(self, task: Train) -> list[Effect]:
        return self.tell(task, events.Prepared(key=task.key(""), number=task.base.number))

    def upload_number(self) -> int:
        assert self.session.work is not None
        assert self.session.work.upload is not None
        return self.session.work.upload.number


def verdict(number: int, fate: UploadFate, reason: str = "") -> events.UploadEnded:
    return events.UploadEnded(upload=number, verdict=Verdict(fate=fate, reason=reason))


def at_upload(clients: str = "abc") -> tuple[Machine, Train]:
    """A machine whose clients are all trained and whose upload is under way."""
    machine = Machine(clients)
    machine.attend()
    task = train(clients)
    machine.ready(task)
    for client in clients:
        machine.tell(events.ClientTrained(finished=finished(task, client)))
    return machine, task


def on_clients(number: int = 0, clients: str = "a") -> messages.Evaluate:
    tasks = tuple(TaskClient(client=client) for client in clients)
    return messages.Evaluate(version=version(number), run_seed=1, clients=tasks)
