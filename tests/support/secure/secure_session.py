"""A session machine under secure aggregation: welcomes, tasks, offers, and a machine that is fed with events."""

from __future__ import annotations

from dataclasses import replace

from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Level,
    Message,
    Offer,
    Roster,
    ShareDelivery,
    Survivors,
    decode,
    encode,
)
from ssd_wire import messages
from ssd_wire.messages import BlobRef, Masking, ModelVersion, SecureMessage, TaskClient, Train
from ssd_wire.uploads import UploadFate, Verdict
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.session import step
from worker.core.state import Session

RUN = "run-1"
ID, OTHER = b"1" * 16, b"2" * 16


def version(number: int) -> ModelVersion:
    return ModelVersion(number=number, model_digest=f"{number:064x}", full=BlobRef(digest="f" * 64, size=4))


def welcome(number: int = 0, *, level: str = "passive", run: str = RUN, held: int = 0) -> events.Welcomed:
    masking = None if level == "off" else Masking(ring_bits=24, clip=1.0, max_client_weight=4)
    return events.Welcomed(
        welcome=messages.Welcome(
            protocol=1,
            session="s",
            run_id=run,
            declaration=BlobRef(digest="d" * 64, size=1),
            declaration_digest="d" * 64,
            held_fates=(messages.HeldFate.KEEP,) * held,
            reinitialise={},
            data_endpoints=(),
            heartbeat_seconds=5.0,
            update_encoding="float32",
            delta_encoding="float16",
            max_cohort=10,
            max_client_weight=10,
            max_upload_bytes=100,
            version=version(number),
            level=level,
            masking=masking,
        )
    )


def train(clients: str, number: int = 0, attempt: int = 1) -> Train:
    said = Train(
        round=number + 1,
        attempt=attempt,
        base=version(number),
        task_digest="",
        run_seed=1,
        rounds=10,
        values={},
        threads=1,
        clients=tuple(TaskClient(client=client) for client in clients),
    )
    return replace(said, task_digest=said.computed_digest(RUN, "d" * 64))


def offer(task: Train, round_id: bytes = ID) -> Offer:
    return Offer(
        round_id=round_id,
        level=Level.PASSIVE,
        model_digest=bytes.fromhex(task.base.model_digest),
        config_digest=bytes(32),
        round=task.round,
        attempt=task.attempt,
        participants=10,
        gamma_ppm=100_000,
        delta_ppm=200_000,
        graph=Graph.COMPLETE,
        ring_bits=24,
        max_total_weight=100,
    )


def heard(message: Message, round_id: bytes = ID) -> events.SecureHeard:
    return events.SecureHeard(round_id=round_id, message=message)


def delivery() -> ShareDelivery:
    return ShareDelivery(recipient="w", sharers=("v", "w"), entries=())


SURVIVORS = Survivors(sharers_digest=bytes(32), names=("v", "w"))


class Machine:
    """A session and everything it asked for."""

    def __init__(self, clients: str = "ab", **fields: object) -> None:
        self.session = Session(clients=dict.fromkeys(clients, 0), run_id=RUN, **fields)  # type: ignore[arg-type]
        self.out: list[Effect] = []

    def tell(self, *news: events.Event) -> list[Effect]:
        self.out = []
        for event in news:
            self.session, out = step(self.session, event)
            self.out.extend(out)
        return self.out

    def attend(self, number: int = 0, *, level: str = "passive") -> list[Effect]:
        return self.tell(events.DialDue(), welcome(number, level=level, held=len(self.session.held)))

    def redial(self, reason: str = "silent") -> list[Effect]:
        return self.tell(events.LinkLost(reason=reason)) + self.attend()

    def asked(self, kind: type) -> list[Effect]:
        return [effect for effect in self.out if type(effect) is kind]

    def finish(self, task: Train, clients: str) -> None:
        self.tell(events.Prepared(key=task.key(""), number=task.base.number))
        for client in clients:
            done = Finished(key=task.key(client), weight=1, seconds=1.0, body_size=8, chunk_digests=b"")
            self.tell(events.ClientTrained(finished=done))

    def said(self) -> list[Message]:
        """What it told the coordinator about secure aggregation."""
        return [
            decode(effect.message.content)
            for effect in self.out
            if isinstance(effect, effects.Send) and isinstance(effect.message, SecureMessage)
        ]

    def answer(self, message: Message | None, *, ready: bool = False, round_id: bytes = ID) -> list[Effect]:
        content = b"" if message is None else encode(message)
        return self.tell(events.SecureAnswered(round_id=round_id, answer=content, ready=ready))

    def judge(self, fate: UploadFate, reason: str = "") -> list[Effect]:
        assert self.session.work is not None
        assert self.session.work.upload is not None
        number = self.session.work.upload.number
        return self.tell(events.UploadEnded(upload=number, verdict=Verdict(fate=fate, reason=reason)))


ADVERT = Advert(
    name="w",
    channel_key=bytes(32),
    mask_key=bytes(32),
    nonce=bytes(32),
    commitment=bytes(32),
    signature=b"",
)


def joined(clients: str = "ab", **fields: object) -> tuple[Machine, Train]:
    """A machine that has an offer."""
    machine, task = Machine(clients, **fields), train(clients)
    machine.attend()
    machine.tell(task, heard(offer(task)))
    return machine, task


def ready(clients: str = "ab") -> tuple[Machine, Train]:
    """A machine whose masks are fixed, and whose clients train."""
    machine, task = joined(clients)
    machine.answer(ADVERT)
    machine.tell(heard(Roster(adverts=())))
    machine.tell(heard(delivery()))
    machine.answer(None, ready=True)
    return machine, task


def uploading(clients: str = "ab") -> tuple[Machine, Train]:
    """A machine whose masked upload is under way."""
    machine, task = ready(clients)
    machine.finish(task, clients)
    return machine, task


def private(place: str, noise: float = 1.0) -> PrivacySettings | None:
    if place == "off":
        return None
    return PrivacySettings(place=NoisePlace(place), clip_norm=1.0, noise_multiplier=noise, delta=1e-5)
