"""Whole rounds of secure aggregation in memory: fixed keys, no network, one-hot inputs.

`Federation` makes participants and an aggregator for one offer and lets a test drive them phase by phase. Inputs are
vectors with one coordinate for each participant, so any opened value but 0 or 1 proves a loss, a replay or a mis-sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from ssd.secagg.client.participant import Participant
from ssd.secagg.client.receipts import Receipt
from ssd.secagg.numbers.masking import MaskKey, apply_masks, negated
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Offer,
    Reveal,
    SetSignature,
    ShareBundle,
    ShareDelivery,
    Survivors,
    decode,
    encode,
)
from ssd.secagg.protocol.policy import AggregatorPolicy, ParticipantPolicy, RunTerms
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.members import Members, Phase
from ssd.trust.participants import Participant as Entry
from ssd.trust.participants import Registry, introduce

MODEL = hashlib.sha256(b"model").digest()
CONFIG = hashlib.sha256(b"config").digest()
Words = NDArray[np.uint32]


class Drawn:
    """Entropy that is the same in every run: SHAKE-256 of a seed, read on and on."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, count: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed}/{self._count}".encode()).digest(count)


class Remembered:
    """`RoundMemory` that outlives participants but not the test."""

    def __init__(self) -> None:
        self.rounds: set[bytes] = set()
        self.bases: dict[bytes, bytes] = {}
        self.receipts: dict[bytes, Receipt] = {}

    def seen(self, round_id: bytes) -> bool:
        return round_id in self.rounds

    def remember_round(self, round_id: bytes) -> None:
        self.rounds.add(round_id)

    def opened(self, base_digest: bytes) -> bytes | None:
        return self.bases.get(base_digest)

    def remember_opened(self, base_digest: bytes, round_id: bytes, survivor_hash: bytes) -> None:
        self.bases.setdefault(base_digest, survivor_hash)

    def uploads(self, base_digest: bytes) -> tuple[Receipt, ...]:
        return tuple(each for each in self.receipts.values() if each.base_digest == base_digest)

    def signed_sets(self) -> tuple[tuple[str, ...], ...]:
        return tuple(each.signed for each in self.receipts.values() if each.signed)[-16:]

    def remember_upload(self, receipt: Receipt) -> None:
        self.receipts.setdefault(receipt.round_id, receipt)

    def remember_signed(self, round_id: bytes, names: tuple[str, ...], survivor_hash: bytes) -> None:
        kept = self.receipts[round_id]
        if not kept.signed:
            self.receipts[round_id] = replace(kept, signed=names, survivors_digest=survivor_hash)


@cache
def signing_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


@cache
def registry(names: tuple[str, ...]) -> Registry:
    entries = []
    for name in sorted(names):
        told = introduce("lab", name, signing_key(name))
        entries.append(Entry(worker=name, key=told["key"], proof=told["proof"], clients=(), max_weight=10))
    return Registry(federation="lab", version=1, issued_at=1_700_000_000, participants=tuple(entries))


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"w{index:03}" for index in range(count))


def offer_for(count: int, level: Level = Level.ACTIVE, **changes: Any) -> Offer:
    offer = Offer(
        round_id=b"round-id-0000001",
        level=level,
        model_digest=MODEL,
        config_digest=CONFIG,
        round=1,
        attempt=1,
        participants=count,
        gamma_ppm=100_000,
        delta_ppm=200_000,
        graph=Graph.COMPLETE,
        ring_bits=32,
        max_total_weight=1000,
    )
    return replace(offer, **changes)


@dataclass
class Federation:
    """An offer, its participants and its aggregator."""

    offer: Offer
    names: tuple[str, ...]
    policy: ParticipantPolicy = field(default_factory=lambda: ParticipantPolicy(level=Level.PASSIVE))
    aggregator_policy: AggregatorPolicy = field(default_factory=AggregatorPolicy)
    aggregator_class: type[Aggregator] = Aggregator
    memories: dict[str, Remembered] = field(default_factory=dict)
    registry: Registry | None = None
    run_terms: RunTerms | None = None

    def __post_init__(self) -> None:
        if self.registry is None and self.offer.level is Level.ACTIVE:
            self.registry = registry(self.names)
        self.aggregator = self.aggregator_class(self.offer, self.names, self.aggregator_policy, self.registry)
        self.participants = {name: self.participant(name) for name in self.names}
        self.uploads: dict[str, Words] = {}

    def participant(self, name: str, **changes: Any) -> Participant:
        memory = self.memories.setdefault(name, Remembered())
        active = self.offer.level is Level.ACTIVE
        arguments = {
            "name": name,
            "policy": self.policy,
            "registry": self.registry if active else None,
            "signer": signing_key(name) if active else None,
            "entropy": Drawn(f"{name}/{self.offer.round_id.hex()}"),
            "memory": memory,
            "run_terms": self.run_terms,
        }
        return Participant(**(arguments | changes))

    def model_of(self, name: str) -> bytes:
        """The model a participant holds."""
        return MODEL

    def __getitem__(self, name: str) -> Participant:
        return self.participants[name]

    # ------------------------------------------------------------- one phase each; `names`: who still takes part

    def advertise(self, names: Iterable[str]) -> dict[str, Advert]:
        adverts = {}
        for name in names:
            adverts[name] = self[name].offer(
                wire(self.offer), model_digest=self.offer.model_digest, config_digest=self.offer.config_digest
            )
            self.aggregator.advert(name, wire(adverts[name]))
        return adverts

    def share(self, names: Iterable[str]) -> dict[str, ShareBundle]:
        roster = wire(self.aggregator.close_adverts())
        bundles = {name: self[name].roster(roster) for name in names}
        for name, bundle in bundles.items():
            self.aggregator.shares(name, wire(bundle))
        return bundles

    def deliver(self, names: Iterable[str]) -> dict[str, ShareDelivery]:
        deliveries = self.aggregator.close_shares()
        for name in names:
            self[name].delivery(wire(deliveries[name]))
        return deliveries

    def upload(self, names: Iterable[str]) -> None:
        for name in names:
            self.uploads[name] = masked(self.one_hot(name), self[name].masks())
            self.aggregator.uploaded(name)
            self[name].uploaded()

    def survive(self, names: Collection[str]) -> Survivors:
        """Close the uploads; in level active also sign and prove; `names` answer."""
        survivors = wire(self.aggregator.close_uploads())
        answers: dict[str, SetSignature | Reveal] = {name: self[name].survivors(survivors) for name in names}
        if self.offer.level is Level.ACTIVE:
            for name, answer in answers.items():
                assert isinstance(answer, SetSignature)
                self.aggregator.signature(name, wire(answer))
        else:
            self._revealed = answers
        return survivors

    def reveal(self, names: Iterable[str]) -> None:
        if self.offer.level is Level.ACTIVE:
            proof = wire(self.aggregator.close_signatures())
            answers: dict[str, Any] = {name: self[name].proof(proof) for name in names}
        else:
            answers = {name: self._revealed[name] for name in names}
        for name, answer in answers.items():
            self.aggregator.reveal(name, wire(answer))
            self.aggregator.rebuild()

    def open(self) -> Words:
        """The opened sum."""
        survivors = self.aggregator.survivors
        assert survivors is not None
        self.aggregator.rebuild()
        total = sum((self.uploads[name] for name in survivors.names), np.zeros(len(self.names), np.uint32))
        apply_masks(total, 0, negated(self.aggregator.unmask()))
        return total

    def one_hot(self, name: str) -> Words:
        return np.eye(len(self.names), dtype=np.uint32)[self.names.index(name)].copy()

    def expected(self, names: Collection[str]) -> Words:
        return np.array([name in names for name in self.names], dtype=np.uint32)

    def until_uploaded(self, names: Collection[str] | None = None) -> None:
        names = self.names if names is None else names
        self.advertise(names)
        self.share(names)
        self.deliver(names)
        self.upload(names)


def masked(vector: Words, keys: list[MaskKey]) -> Words:
    apply_masks(vector, 0, keys)
    return vector


def wire(message: Any) -> Any:
    """The message as it arrives: through its bytes."""
    return decode(encode(message))


class Everybody(Members):
    """Members who may say what they like."""

    def reject_unless(self, *_: object) -> None:
        pass


class Liar(Aggregator):
    """The real aggregator, with its checks switched off and a chance to change whatever anybody is told."""

    def __init__(self, offer: Offer, names: Sequence[str], *rest: Any) -> None:
        super().__init__(offer, names, *rest)
        self._members = Everybody(names)

    def tell(self, name: str, message: Any) -> Any:
        """What `name` is told instead of `message`; None: nothing."""
        return message

    def more(self, name: str) -> list[Any]:
        """What `name` is told after it revealed."""
        return []

    def _abort_unless(self, *_: object) -> None:
        pass


def outcomes(f: Federation, gone_before_upload: Collection[str] = ()) -> dict[str, AbortReason | Reveal]:
    """Drive everybody as far as it goes; for each why it refused, or what it revealed.

    With a lying aggregator a reveal is what the lie was after.
    """
    liar = f.aggregator
    assert isinstance(liar, Liar)
    ended: dict[str, AbortReason | Reveal] = {}

    def each(step: Callable[[str], Any]) -> dict[str, Any]:
        said = {}
        for name in f.names:
            if name in ended or (name in gone_before_upload and f.aggregator.phase is Phase.UPLOADING):
                continue
            try:
                said[name] = step(name)
            except Refused as refused:
                ended[name] = refused.reason
        return said

    def adverts(name: str) -> Advert:
        offer = liar.tell(name, f.offer)
        return f[name].offer(offer, model_digest=f.model_of(name), config_digest=CONFIG)

    for name, advert in each(adverts).items():
        liar.advert(name, advert)
    if len(ended) == len(f.names):
        return ended
    roster = liar.close_adverts()
    for name, bundle in each(lambda name: f[name].roster(liar.tell(name, roster))).items():
        liar.shares(name, bundle)
    if len(ended) == len(f.names):
        return ended
    deliveries = liar.close_shares()
    each(lambda name: f[name].delivery(liar.tell(name, deliveries.get(name))))
    each(lambda name: f.upload([name]))
    survivors = liar.close_uploads()
    answers = each(lambda name: f[name].survivors(liar.tell(name, survivors)))
    if f.offer.level is Level.ACTIVE:
        for name, signature in answers.items():
            liar.signature(name, signature)
        proof = liar.close_signatures()
        answers = each(lambda name: f[name].proof(liar.tell(name, proof)))
    each(lambda name: [f[name].survivors(message) for message in liar.more(name)])
    for name, reveal in answers.items():
        ended.setdefault(name, reveal)
    return ended
