"""A worker of a run with secure aggregation, in the process of the driver: it says and uploads what a worker would."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.errors import ClientFault
from coordinator.parts import Coordinator
from coordinator.workers.sessions import Session
from secure.secure_rounds import Remembered
from ssd.digest import CHUNK_BYTES, chunk_digests
from ssd.secagg.client.participant import Participant
from ssd.secagg.numbers.config_digest import config_digest
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.numbers.masked_sum import MaskedSum
from ssd.secagg.protocol.errors import Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    AbortNotice,
    Offer,
    Opened,
    Refusal,
    Roster,
    SetProof,
    ShareDelivery,
    Survivors,
    decode,
    encode,
)
from ssd.secagg.protocol.policy import ParticipantPolicy
from ssd.trust.participants import Registry
from ssd.updates.fold import FoldPlan, encode_update
from ssd_wire.messages import Cancel, Committed, Hello, SecureMessage, Train
from ssd_wire.uploads import Envelope, UploadFate, UploadKind, Verdict, WeightedClient


def rounding_key(client: str, round_number: int) -> bytes:
    """Of a client, whoever hosts it: so that federations cut in different ways can be compared."""
    return hashlib.sha256(f"rounding {client} {round_number}".encode()).digest()


def update(plan: FoldPlan, client: str, round_number: int) -> tuple[bytes, int]:
    """A client's update body and weight: made up, and different for every client and round."""
    seed = int.from_bytes(hashlib.sha256(f"{client} {round_number}".encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    delta = random.normal(0, 0.01, plan.size).astype(np.float32)
    statistics = {each.name: np.ones(each.shape) for each in plan.statistics}
    return bytes(encode_update(plan, delta, statistics)), 1 + seed % 7


class Gone(Exception):
    """The worker's process ended here."""


class MaskedWorker:
    """One worker.

    Args:
        driver: asked again at every use, so that a coordinator may be restarted.
        name: of the worker.
        clients: it hosts.
        level: the least it works under.
        registry: of participants; with `signer` only in level active.
        signer: its own key.
        dies_before: name of a message class, "upload" or "verdict": what it does not live to answer or do.
    """

    def __init__(
        self,
        driver: Callable[[], Coordinator],
        name: str,
        clients: tuple[str, ...],
        *,
        registry: Registry | None = None,
        signer: Ed25519PrivateKey | None = None,
        dies_before: str = "",
        policy: ParticipantPolicy | None = None,
    ) -> None:
        self._driver = driver
        self.name = name
        self.clients = dict.fromkeys(clients, 0)
        self.instance = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        self.memory = Remembered()
        self.policy = policy or ParticipantPolicy(level=Level.PASSIVE if signer is None else Level.ACTIVE)
        self.registry, self.signer = registry, signer
        self.dies_before = dies_before
        self.mute = ""
        """Name of a message class that it does not answer."""
        self.trains_slowly: set[str] = set()
        """Clients that are not trained at once."""
        self.session: Session | None = None
        self.process: asyncio.Future[None] | None = None
        """Where it lives, once begun."""
        self.heard: list[object] = []
        self.heard_raw: list[bytes] = []
        self.verdicts: list[Verdict] = []
        self.refusals: list[ClientFault] = []
        self._forget()

    def _forget(self) -> None:
        self.participant: Participant | None = None
        self.round_id = b""
        self.train: Train | None = None

    @property
    def driver(self) -> Coordinator:
        return self._driver()

    async def attend(self) -> Session:
        """Open a session; a new process if the last one ended."""
        hello = Hello(worker=self.name, instance=self.instance, clients=dict(self.clients), run_id="run")
        self.session = await self.driver.attendance.attach(hello)
        return self.session

    async def live(self) -> None:
        """Attend, and do what is asked until the session or the worker ends."""
        session = await self.attend()
        with contextlib.suppress(Gone):
            while (message := await session.outbox.get()) is not None:
                await self.take(message)
            return
        self._forget()
        self.dies_before = ""
        self.driver.attendance.detach(session)

    async def take(self, message: object) -> None:
        """One message."""
        match message:
            case Train():
                self.train = message
                for client in (each.client for each in message.clients):
                    if client not in self.trains_slowly:
                        await self.trained(client)
            case Committed():
                self.clients.update(dict.fromkeys(message.included, message.round))
            case Cancel():
                self.train = None
            case SecureMessage():
                await self._secure(message)

    async def _secure(self, message: SecureMessage) -> None:
        said = decode(message.content)
        self.heard.append(said)
        self.heard_raw.append(message.content)
        if type(said).__name__ == self.dies_before:
            raise Gone
        if type(said).__name__ == self.mute:
            return
        if isinstance(said, Opened | AbortNotice):
            self.participant = None
            return
        if isinstance(said, Offer) and message.round_id != self.round_id:
            self.participant = Participant(
                name=self.name,
                policy=self.policy,
                registry=self.registry,
                signer=self.signer,
                entropy=os.urandom,
                memory=self.memory,
            )
            self.round_id = message.round_id
        if self.participant is None or message.round_id != self.round_id:
            await self.say(message.round_id, encode(Refusal(reason="unexpected_message", detail="no keys")))
            return
        try:
            answer = self._answer(self.participant, said)
        except Refused as error:
            await self.say(message.round_id, encode(Refusal.of(error.reason, error.detail)))
            return
        if answer is not None:
            await self.say(message.round_id, encode(answer))
        else:
            await self.upload()

    def _answer(self, participant: Participant, said: object):
        match said:
            case Offer():
                assert self.train is not None
                plan = self.plan
                return participant.offer(
                    said,
                    model_digest=bytes.fromhex(self.train.base.model_digest),
                    config_digest=config_digest(plan.digest, self.train.task_digest),
                )
            case Roster():
                return participant.roster(said)
            case ShareDelivery():
                participant.delivery(said)
                return None
            case Survivors():
                return participant.survivors(said)
            case SetProof():
                return participant.proof(said)
        raise AssertionError(said)

    @property
    def plan(self) -> MaskedPlan:
        secure = self.driver.round_sum
        assert secure is not None
        assert self.train is not None
        return secure.plan(self.driver.quality.plan(self.train.round))

    async def trained(self, client: str, step: int = 1, steps: int = 1) -> None:
        """Say how far a client's training is."""
        assert self.session is not None
        assert self.train is not None
        await self.driver.attendance.progressed(
            self.session, self.train.round, self.train.attempt, client, step, steps
        )

    async def say(self, round_id: bytes, content: bytes) -> None:
        """A message up."""
        assert self.session is not None
        await self.driver.attendance.secure_message(self.session, round_id, content)

    def body(self) -> bytes:
        """The masked vector of all clients of the present task."""
        assert self.train is not None
        assert self.participant is not None
        fold = MaskedFold(self.plan)
        for client in (each.client for each in self.train.clients):
            content, weight = update(self.plan.fold, client, self.train.round)
            weight = weight if self.plan.noise is None else 1
            fold.add_client(content, weight, rounding_key(client, self.train.round))
        if self.plan.noise is not None:
            fold.add_noise(os.urandom)
        fold.add_masks(self.participant.masks())
        return b"".join(fold.pack_chunks())

    def envelope(self, body: bytes, **changes: object) -> Envelope:
        """Of that body."""
        assert self.train is not None
        assert self.participant is not None
        fields: dict[str, object] = {
            "run_id": self.driver.reports.facts.record.run_id,
            "round": self.train.round,
            "attempt": self.train.attempt,
            "base_digest": self.train.base.model_digest,
            "spec_digest": self.driver.reports.facts.declaration.spec.digest,
            "task_digest": self.train.task_digest,
            "kind": UploadKind.MASKED,
            "clients": tuple(WeightedClient(client=each.client, weight=0) for each in self.train.clients),
            "body_size": len(body),
            "chunk_digests": chunk_digests(body),
            "secure_round": self.round_id,
            "sharers_digest": self.participant.sharers_digest,
        }
        return Envelope(**{**fields, **changes})  # type: ignore[arg-type]

    async def upload(self, **changes: object) -> None:
        """Send the masked vector and hear the verdict."""
        if self.dies_before == "upload":
            raise Gone
        body = self.body()
        await self.send(self.envelope(body, **changes), body)
        if self.dies_before == "verdict":
            raise Gone
        if self.verdicts and self.verdicts[-1].fate is UploadFate.ACCEPTED and self.participant is not None:
            self.participant.uploaded()

    async def send(self, envelope: Envelope, body: bytes) -> None:
        """Send any body."""
        assert self.session is not None
        taken = None
        try:
            self.driver.uploads.let_in(self.session, envelope)
            taken = self.driver.in_flight.claim(self.session.worker, envelope)
            assert taken is not None, "there is room for every upload of these tests"
            for start in range(0, len(body), CHUNK_BYTES):
                taken.take(start, body[start : start + CHUNK_BYTES])
        except ClientFault as fault:
            self.refusals.append(fault)
            if taken is not None:
                self.driver.in_flight.release(taken)
            self.driver.uploads.reject(self.session, envelope, fault)
            return
        self.verdicts.append(await self.driver.verification.judge(self.session, taken))

    def said(self, kind: type) -> list:
        """What it heard of a kind."""
        return [each for each in self.heard if isinstance(each, kind)]


def expected_sum(plan: MaskedPlan, clients: Mapping[str, int] | tuple[str, ...], round_number: int):
    """What these clients' quantised updates add up to, with nobody's keys involved but one throw-away mask."""
    from ssd.secagg.numbers.masking import MaskKey

    total, keys = MaskedSum(plan), [MaskKey(bytes(32), 1)]
    for client in clients:
        fold = MaskedFold(plan)
        content, weight = update(plan.fold, client, round_number)
        fold.add_client(content, weight, rounding_key(client, round_number))
        fold.add_masks(keys)
        total.add(b"".join(fold.pack_chunks()))
        total.subtract(keys)
    return total
