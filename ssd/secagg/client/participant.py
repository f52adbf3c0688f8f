"""One participant of one round of secure aggregation (Bonawitz et al., CCS 2017; Bell et al., CCS 2020).

It trusts nothing it is told. Rules it keeps:

- A message is checked whole before anything is done; a check that fails ends the round here, and every secret goes.
- A message that is not due is refused; the very same message again gets the very same answer.
- Of each neighbour it reveals a share of the self-mask secret or of the mask seed, by the survivor set, never both;
  it answers one survivor set, once.
- What must not be forgotten is remembered before the answer is returned: the round id before the advert, the attempt
  before the masks of its upload, the survivor set before its signature, the opened base before the shares. Once it revealed shares over a base it takes part in no other attempt on that base.
- Keys are in memory only. A process that starts again has none, so it is a dropout of that round.

The checks of messages are in `ssd.secagg.protocol.checks`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NoReturn, Protocol, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.secagg.client.receipts import Receipt
from ssd.secagg.client.round_keys import RoundKeys, Shares
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.checks import (
    check_change,
    check_delivery,
    check_honest,
    check_proof,
    check_roster,
    check_run_terms,
    check_survivors,
    check_terms,
    refuse_unless,
)
from ssd.secagg.protocol.errors import AbortReason, MalformedMessage, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    Advert,
    Kind,
    Message,
    Offer,
    Reveal,
    RevealedShare,
    Roster,
    SetProof,
    SetSignature,
    ShareBundle,
    ShareDelivery,
    ShareEntry,
    Survivors,
    digest,
)
from ssd.secagg.protocol.policy import ParticipantPolicy, RunTerms
from ssd.secagg.protocol.shamir import Entropy
from ssd.secagg.protocol.signatures import keys_of, sign_advert, sign_survivors
from ssd.trust.participants import Registry
from ssd.trust.signing import public_hex

Answer = TypeVar("Answer")


class RoundMemory(Protocol):
    """What a participant must not forget when its process ends.

    Behaviour:
        seen: whether `remember_round` was ever called with this id.
        remember_round: durable before it returns.
        opened: digest of the survivor set that shares were revealed for over a base; None if none were.
        remember_opened: durable before it returns; the first set of a base stands.
        uploads: every receipt of that base, oldest first.
        signed_sets: those of the last 16 receipts that have one; a sum further back is over another model by far.
        remember_upload: durable before it returns; of a round id that it has, nothing changes.
        remember_signed: durable before it returns; adds the set to the receipt of the round id, where the first one stands.
    All may raise what storage raises; nothing is then told to anybody.
    """

    def seen(self, round_id: bytes) -> bool:
        """Whether the id was remembered."""
        ...

    def remember_round(self, round_id: bytes) -> None:
        """Remember an id."""
        ...

    def opened(self, base_digest: bytes) -> bytes | None:
        """The survivor set revealed over a base."""
        ...

    def remember_opened(self, base_digest: bytes, round_id: bytes, survivor_hash: bytes) -> None:
        """Remember a base."""
        ...

    def uploads(self, base_digest: bytes) -> tuple[Receipt, ...]:
        """The attempts over a base that a masked vector was made for."""
        ...

    def signed_sets(self) -> tuple[tuple[str, ...], ...]:
        """The survivor sets signed last, in any run."""
        ...

    def remember_upload(self, receipt: Receipt) -> None:
        """Remember an attempt that a masked vector is made for."""
        ...

    def remember_signed(self, round_id: bytes, names: tuple[str, ...], survivor_hash: bytes) -> None:
        """Remember the survivor set of such an attempt."""
        ...


class _State(Enum):
    NEW = auto()
    ADVERTISED = auto()
    SHARED = auto()
    DELIVERED = auto()
    MASKED = auto()
    UPLOADED = auto()
    SIGNED = auto()
    REVEALED = auto()
    CLOSED = auto()


class Participant:
    """One round id's state. Not safe to call from two threads at once.

    Args:
        name: the worker's.
        policy: its terms.
        registry: participants and their keys, from the pinned signer; None only in level `passive`.
        signer: the worker's own signing key; None only in level `passive`.
        entropy: n secret uniform bytes.
        memory: what outlives this object.
        run_terms: what the worker was told when it joined the run; None: nothing that an offer could contradict.

    Raises (all methods):
        Refused: the round is over here, and closed.
    """

    def __init__(
        self,
        *,
        name: str,
        policy: ParticipantPolicy,
        registry: Registry | None,
        signer: Ed25519PrivateKey | None,
        entropy: Entropy,
        memory: RoundMemory,
        run_terms: RunTerms | None = None,
    ) -> None:
        self._name = name
        self._policy = policy
        self._keys = keys_of(registry)
        self._signer = signer
        self._entropy = entropy
        self._memory = memory
        self._run_terms = run_terms
        self.sharers_digest = b""
        """32 bytes after `delivery`: what the masked upload and the survivor set refer to. Not secret."""
        self._state = _State.NEW
        self._answers: dict[bytes, object] = {}
        self._offer: Offer
        self._advert: Advert
        self._layout: Layout
        self._sharers: tuple[str, ...] = ()
        self._survivors: Survivors
        self._own: RoundKeys | None = None
        self._held: dict[str, Shares] = {}
        self._masks: list[MaskKey] = []

    def __repr__(self) -> str:
        return f"Participant({self._name!r}, {self._state.name})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a participant's keys live in memory only")

    def close(self) -> None:
        """Drop every secret. Nothing is answered any more."""
        self._state = _State.CLOSED
        self._own = None
        self._held = {}
        self._masks = []
        self._answers = {}

    def offer(self, offer: Offer, *, model_digest: bytes, config_digest: bytes) -> Advert:
        """Take an offer and make keys for it.

        Args:
            offer: as received.
            model_digest: of the model this host itself holds, 32 bytes.
            config_digest: of the configuration this host itself computed, 32 bytes.
        """

        def work() -> Advert:
            check_terms(self._policy, offer)
            if self._run_terms is not None:
                check_run_terms(self._run_terms, offer)
            refuse_unless(
                offer.model_digest == model_digest, AbortReason.MODEL_DIFFERS, "another model is here"
            )
            refuse_unless(
                offer.config_digest == config_digest,
                AbortReason.CONFIG_DIFFERS,
                "another configuration is here",
            )
            if offer.level is Level.ACTIVE:
                self._check_identity()
            refuse_unless(
                not self._memory.seen(offer.round_id), AbortReason.ROUND_SEEN, "its keys were made before"
            )
            refuse_unless(
                self._memory.opened(offer.model_digest) is None,
                AbortReason.BASE_OPENED,
                "shares were revealed over this base in another attempt",
            )
            self._memory.remember_round(offer.round_id)
            self._offer = offer
            self._advert = self._make_advert(offer)
            self._state = _State.ADVERTISED
            return self._advert

        return self._answer(offer, (_State.NEW,), work)

    def roster(self, roster: Roster) -> ShareBundle:
        """Take everybody's keys and share the own secrets among the neighbours."""

        def work() -> ShareBundle:
            check_roster(self._policy, self._offer, self._advert, self._keys, roster)
            self._layout = _layout(self._offer, roster)
            if self._offer.level is Level.ACTIVE:
                check_honest(self._policy, self._layout, len(self._keys))
                self._check_earlier()
            self._held[self._name], bundle = self._secrets.share(self._layout)
            self._state = _State.SHARED
            return bundle

        return self._answer(roster, (_State.ADVERTISED,), work)

    def delivery(self, delivery: ShareDelivery) -> None:
        """Take the neighbours' shares; from now on `masks` are known."""

        def work() -> None:
            check_delivery(self._policy, self._layout, self._name, delivery)
            self._held.update({entry.peer: self._unseal(entry) for entry in delivery.entries})
            self._sharers = delivery.sharers
            self.sharers_digest = keys.sharers_digest(self._layout.context, delivery.sharers)
            self._state = _State.DELIVERED

        self._answer(delivery, (_State.SHARED,), work)

    def masks(self) -> list[MaskKey]:
        """The own self mask and one mask for each neighbour that shared. For one vector only: never mask two."""
        return list(self._guarded(self._make_masks))

    def uploaded(self) -> None:
        """The masked upload was acknowledged: the own secrets are not needed any more."""

        def work() -> None:
            refuse_unless(
                self._state
                not in (_State.NEW, _State.ADVERTISED, _State.SHARED, _State.DELIVERED, _State.CLOSED),
                AbortReason.UNEXPECTED_MESSAGE,
                "an upload was acknowledged that was not made",
            )
            if self._state is _State.MASKED:
                self._state = _State.UPLOADED
                self._forget_own()

        self._guarded(work)

    def survivors(self, survivors: Survivors) -> SetSignature | Reveal:
        """Take the survivor set: sign it in level `active`, reveal the shares it asks for in level `passive`."""

        def work() -> SetSignature | Reveal:
            check_survivors(self._policy, self._layout, self._name, self._sharers, survivors)
            check_change(self._policy, self._memory.signed_sets(), survivors)
            self._forget_own()
            self._survivors = survivors
            self._memory.remember_signed(self._offer.round_id, survivors.names, digest(survivors))
            if self._offer.level is Level.PASSIVE:
                return self._reveal()
            assert self._signer is not None  # `_check_identity` looked
            self._state = _State.SIGNED
            return sign_survivors(self._signer, self._name, survivors)

        return self._answer(survivors, (_State.MASKED, _State.UPLOADED), work)

    def proof(self, proof: SetProof) -> Reveal:
        """Take the others' signatures of the same survivor set, and reveal the shares it asks for."""

        def work() -> Reveal:
            check_proof(self._layout, self._survivors, self._keys, proof)
            return self._reveal()

        return self._answer(proof, (_State.SIGNED,), work)

    # ------------------------------------------------------------------------------------------------- steps

    def _make_advert(self, offer: Offer) -> Advert:
        self._own = RoundKeys(self._name, self._entropy)
        advert = self._own.advert(offer)
        if offer.level is Level.PASSIVE:
            return advert
        assert self._signer is not None  # `_check_identity` looked
        return sign_advert(self._signer, digest(offer), advert)

    def _unseal(self, entry: ShareEntry) -> Shares:
        try:
            return self._secrets.unseal(self._layout, entry)
        except keys.BadCiphertext as error:
            raise Refused(AbortReason.BAD_SHARE, f"of {entry.peer}: {error}") from None

    def _make_masks(self) -> list[MaskKey]:
        refuse_unless(
            self._state in (_State.DELIVERED, _State.MASKED),
            AbortReason.UNEXPECTED_MESSAGE,
            "there are no masks in this state",
        )
        if self._state is _State.DELIVERED:
            self._memory.remember_upload(Receipt.of(self._layout))
            self._masks = self._secrets.masks(self._layout, self.sharers_digest, self._peers)
            self._state = _State.MASKED
        return self._masks

    @property
    def _peers(self) -> list[str]:
        near = frozenset(self._layout.neighbours(self._name))
        return [peer for peer in self._sharers if peer in near]

    def _reveal(self) -> Reveal:
        survivors, base = self._survivors, self._offer.model_digest
        refuse_unless(
            self._memory.opened(base) is None,
            AbortReason.BASE_OPENED,
            "shares were revealed over this base in another attempt",
        )
        self._memory.remember_opened(base, self._offer.round_id, digest(survivors))
        alive = frozenset(survivors.names)
        entries = []
        for about in sorted((self._name, *self._peers)):
            self_share, mask_share = self._held[about]
            # One of the two, decided by the survivor set alone.
            entry = (Kind.SELF, self_share) if about in alive else (Kind.MASK, mask_share)
            entries.append(RevealedShare(about=about, kind=entry[0], share=entry[1]))
        self._held = {}
        self._state = _State.REVEALED
        return Reveal(name=self._name, entries=tuple(entries))

    @property
    def _secrets(self) -> RoundKeys:
        assert self._own is not None  # drawn with the advert, dropped with the upload
        return self._own

    def _forget_own(self) -> None:
        self._own = None
        self._masks = []

    def _check_earlier(self) -> None:
        """No second sum: what was uploaded over this base before must not have been opened without this participant."""
        there = self._layout.adverts.keys()
        for before in self._memory.uploads(self._offer.model_digest):
            back = len(there & set(before.roster))
            refuse_unless(
                back >= before.returning,
                AbortReason.ROSTER_SHRUNK,
                f"{back} of the {len(before.roster)} of attempt {before.attempt} over the same model, {before.returning}"
                " are needed to know that it was not opened",
            )

    def _check_identity(self) -> None:
        signer = self._signer
        own = None if signer is None else public_hex(signer)
        refuse_unless(
            own is not None and self._keys.get(self._name) == own,
            AbortReason.NO_IDENTITY,
            "level active needs a signing key that the pinned registry knows as this worker's",
        )

    def _answer(self, message: Message, due: tuple[_State, ...], work: Callable[[], Answer]) -> Answer:
        """The answer to a message: the one given before to the very same message, or else `work`'s."""

        def take() -> Answer:
            try:
                same = digest(message)
            except MalformedMessage as error:
                raise Refused(error.reason, error.detail) from None
            if same not in self._answers:
                refuse_unless(
                    self._state in due,
                    AbortReason.UNEXPECTED_MESSAGE,
                    f"nothing of the kind is due ({self!r})",
                )
                self._answers[same] = work()
            return cast("Answer", self._answers[same])

        return self._guarded(take)

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        """Whatever goes wrong, the round is over: half a step must not be gone on from."""
        try:
            return work()
        except BaseException:
            self.close()
            raise


def _layout(offer: Offer, roster: Roster) -> Layout:
    try:
        return Layout.of(offer, roster)
    except ValueError as error:
        raise Refused(AbortReason.NO_THRESHOLD, str(error)) from None
