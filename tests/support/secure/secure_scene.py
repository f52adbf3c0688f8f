"""A round of secure aggregation around one real worker: a `FakeCoordinator`, the real aggregator, other participants
in memory. The test says what is sent and may lie."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from processes.instant_trainer import InstantTrainer, update_of
from rounds.worker_harness import Worker, start_worker
from secure.secure_rounds import Remembered
from ssd.secagg.client.participant import Participant
from ssd.secagg.numbers.config_digest import config_digest
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masked_sum import MaskedSum
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.keys import rounding_key
from ssd.secagg.protocol.messages import Graph, Message, Offer, Reveal, SetSignature, decode, encode
from ssd.secagg.protocol.policy import AggregatorPolicy, ParticipantPolicy
from ssd.secagg.server.aggregator import Aggregator
from ssd.trust.participants import Registry
from ssd.updates.codec import Encoding
from ssd.updates.fold_plan import OpenedFold
from ssd_proto.v1 import federation_pb2 as pb
from wire.fake_coordinator import Attended, FakeCoordinator, Upload
from worker.core.state import SecureTerms
from worker.secure_aggregation.rounds import SecureSettings

OWN = "w1"
RING_BITS, CLIP, MAX_WEIGHT = 24, 0.05, 8


class Scene:
    """One try at opening one sum. The worker under test is `w1`; its stream may be replaced by a later one."""

    def __init__(
        self,
        coordinator: FakeCoordinator,
        attended: Attended,
        train: pb.Train,
        *,
        peers: Sequence[str] = ("p1", "p2"),
        level: Level = Level.PASSIVE,
        registry: Registry | None = None,
        signers: dict[str, object] | None = None,
        changes: dict[str, object] | None = None,
    ) -> None:
        self.coordinator, self.attended, self.train = coordinator, attended, train
        self.plan = masked_plan(coordinator)
        self.base = bytes.fromhex(train.base.model_digest)
        fields: dict[str, object] = {
            "round_id": secrets.token_bytes(16),
            "level": level,
            "model_digest": self.base,
            "config_digest": config_digest(self.plan.digest, train.task_digest),
            "round": train.round,
            "attempt": train.attempt,
            "participants": 10,
            "gamma_ppm": 0,
            "delta_ppm": 0,
            "graph": Graph.COMPLETE,
            "ring_bits": RING_BITS,
            "max_total_weight": self.plan.max_total_weight,
        }
        self.offer = Offer(**(fields | (changes or {})))  # type: ignore[arg-type]
        self.aggregator = Aggregator(self.offer, (OWN, *peers), AggregatorPolicy(), registry)
        self.peers = {
            name: Participant(
                name=name,
                policy=ParticipantPolicy(level=Level.PASSIVE),
                registry=registry,
                signer=(signers or {}).get(name),  # type: ignore[arg-type]
                entropy=secrets.token_bytes,
                memory=Remembered(),
            )
            for name in peers
        }

    # What is said.

    def say(self, message: Message, round_id: bytes = b"", *, blob: bool = False) -> None:
        self.say_bytes(encode(message), round_id, blob=blob)

    def say_bytes(self, content: bytes, round_id: bytes = b"", *, blob: bool = False) -> None:
        said = pb.SecureAggregation(round_id=round_id or self.offer.round_id)
        if blob:
            said.blob.CopyFrom(self.coordinator.keep_blob(content))
        else:
            said.message = content
        self.attended.send(secure_aggregation=said)

    async def hear(self) -> Message:
        return decode((await self.attended.receive("secure_aggregation")).message)

    async def ask(self, message: Message, *, blob: bool = False) -> Message:
        self.say(message, blob=blob)
        return await self.hear()

    # The phases, honestly.

    def begin(self) -> None:
        self.attended.send(train=self.train)

    async def share_keys(self, *, blob: bool = False) -> None:
        """Offer to delivery."""
        aggregator, digests = self.aggregator, {"model_digest": self.base}
        digests["config_digest"] = self.offer.config_digest
        aggregator.advert(OWN, await self.ask(self.offer))  # type: ignore[arg-type]
        for name, peer in self.peers.items():
            aggregator.advert(name, peer.offer(self.offer, **digests))
        roster = aggregator.close_adverts()
        aggregator.shares(OWN, await self.ask(roster, blob=blob))  # type: ignore[arg-type]
        for name, peer in self.peers.items():
            aggregator.shares(name, peer.roster(roster))
        deliveries = aggregator.close_shares()
        for name, peer in self.peers.items():
            peer.delivery(deliveries[name])
        self.say(deliveries[OWN], blob=blob)

    async def take_upload(self) -> Upload:
        """The worker's masked upload."""
        upload = await self.coordinator.uploaded()
        assert upload.envelope.kind == pb.Envelope.KIND_MASKED
        assert upload.envelope.secure_round == self.offer.round_id
        assert upload.envelope.sharers_digest == self.aggregator.sharers_digest
        assert len(upload.body) == self.plan.nbytes
        assert {each.weight for each in upload.envelope.clients} == {0}
        self.aggregator.uploaded(OWN)
        return upload

    def peer_body(self, name: str) -> bytes:
        """A peer's masked vector, of one client of its own name."""
        fold = self.peer_fold(name)
        fold.add_masks(self.peers[name].masks())
        self.peers[name].uploaded()
        self.aggregator.uploaded(name)
        return b"".join(fold.pack_chunks())

    def peer_fold(self, name: str) -> MaskedFold:
        fold = MaskedFold(self.plan)
        body, weight = update_of(self.plan.fold, self.train.round, name)
        fold.add_client(body, weight, hashlib.sha256(name.encode()).digest())
        return fold

    async def reveal(self) -> None:
        """Survivor set to reveals."""
        aggregator = self.aggregator
        survivors = aggregator.close_uploads()
        answers = {OWN: await self.ask(survivors)} | {
            name: peer.survivors(survivors) for name, peer in self.peers.items() if name in survivors.names
        }
        if self.offer.level is Level.ACTIVE:
            for name, answer in answers.items():
                assert isinstance(answer, SetSignature)
                aggregator.signature(name, answer)
            proof = aggregator.close_signatures()
            answers = {OWN: await self.ask(proof)} | {
                name: self.peers[name].proof(proof) for name in answers if name != OWN
            }
        for name, answer in answers.items():
            assert isinstance(answer, Reveal)
            aggregator.reveal(name, answer)
            aggregator.rebuild()

    def open(self, bodies: Sequence[bytes]) -> tuple[OpenedFold, bytes]:
        """The sum, and the digest of its ring vector."""
        total = MaskedSum(self.plan)
        for body in bodies:
            total.add(body)
        total.subtract(self.aggregator.unmask())
        return total.open(len(bodies)), total.packed_digest()

    def expected(self, secret: bytes, clients: Sequence[str], peers: Sequence[str]) -> bytes:
        """Digest of the plain sum of what everybody's updates are quantised to."""
        own = MaskedFold(self.plan)
        for client in clients:
            body, weight = update_of(self.plan.fold, self.train.round, client)
            key = rounding_key(
                secret,
                run_id=self.coordinator.run_id,
                round=self.train.round,
                base_digest=self.base,
                client=client,
            )
            own.add_client(body, weight, key)
        return plain_sum(self.plan, [own, *map(self.peer_fold, peers)]).packed_digest()


def plain_sum(plan: MaskedPlan, folds: Sequence[MaskedFold]) -> MaskedSum:
    """The sum of vectors, masked and unmasked with one known key."""
    known, total = [MaskKey(bytes(32), 1)], MaskedSum(plan)
    for fold in folds:
        fold.add_masks(known)
        total.add(fold.pack_chunks())
        total.subtract(known)
    return total


def masked_plan(coordinator: FakeCoordinator) -> MaskedPlan:
    settings = MaskedSettings(
        ring_bits=RING_BITS,
        clip=CLIP,
        max_client_weight=MAX_WEIGHT,
        max_cohort=coordinator.max_cohort,
    )
    return MaskedPlan.create(coordinator.plan, settings)


def secure_coordinator(level: str = "passive", parameters: int = 512) -> FakeCoordinator:
    coordinator = FakeCoordinator({"parameters": parameters})
    coordinator.update_encoding = Encoding.FLOAT32
    coordinator.welcome_changes = {
        "secure_aggregation_level": level,
        "masking": pb.Masking(ring_bits=RING_BITS, clip=CLIP, max_client_weight=MAX_WEIGHT),
    }
    return coordinator


@asynccontextmanager
async def secure_federation(
    state_dir: Path,
    clients: Sequence[str] = ("a", "b"),
    *,
    level: str = "passive",
    parameters: int = 512,
    secure: SecureSettings | None = None,
    terms: SecureTerms | None = None,
) -> AsyncIterator[tuple[FakeCoordinator, Worker]]:
    """A coordinator that runs secure aggregation, and one worker."""
    coordinator = secure_coordinator(level, parameters)
    await coordinator.start()
    worker = secure_worker(coordinator, state_dir, clients, secure=secure, terms=terms)
    try:
        yield coordinator, worker
    finally:
        if not worker.task.done():
            await worker.crash()
        await coordinator.stop()


def secure_worker(
    coordinator: FakeCoordinator,
    state_dir: Path,
    clients: Sequence[str] = ("a", "b"),
    *,
    secure: SecureSettings | None = None,
    terms: SecureTerms | None = None,
) -> Worker:
    return start_worker(
        coordinator.target,
        state_dir,
        clients,
        name=OWN,
        secure=secure,
        terms=terms,
        trainer=lambda store, driver: InstantTrainer(store, driver.post, lambda: coordinator.plan),
    )
