"""The coordinator's side of one attempt of secure aggregation.

    OFFERED -> ROSTERED -> UPLOADING -> SIGNING (level `active`) -> REVEALING -> READY
       and from each of them ABORTED

Rules it keeps:

- A message is taken or rejected whole; a rejected one changes nothing, except that a sender that broke the protocol is
  expelled: for the rest of the attempt it counts as dropped out. The very same message again changes nothing.
- Who is in a set is decided when its phase is closed, never later.
- What is rebuilt is verified (`ssd.secagg.server.rebuilding`). Pairs that both dropped out have no mask in the sum: skipped.
- An abort is final; the attempt's round id must not be used again.

Each check is a call of `_reject_unless` or `_abort_unless`; `tests/mutation/` takes them out one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NoReturn, TypeVar

from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.checks import least_survivors
from ssd.secagg.protocol.errors import Aborted, AbortReason, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    Advert,
    Message,
    Offer,
    Opened,
    Reveal,
    Roster,
    SetProof,
    SetSignature,
    ShareBundle,
    ShareDelivery,
    ShareEntry,
    Sharers,
    Survivors,
    digest,
    encode,
)
from ssd.secagg.protocol.policy import AggregatorPolicy
from ssd.secagg.protocol.signatures import advert_is_signed, keys_of, survivors_are_signed
from ssd.secagg.server import journal
from ssd.secagg.server.opening import Opening, Rebuilding
from ssd.trust.participants import Registry

Taken = TypeVar("Taken", bound=Message)


class Phase(StrEnum):
    """What is waited for."""

    OFFERED = "offered"
    """Adverts."""
    ROSTERED = "rostered"
    """Share bundles."""
    UPLOADING = "uploading"
    """Masked uploads."""
    SIGNING = "signing"
    """Signatures of the survivor set; level `active` only."""
    REVEALING = "revealing"
    """Shares."""
    READY = "ready"
    """Nothing: the sum can be opened."""
    ABORTED = "aborted"


class Aggregator:
    """One attempt. Not safe to call from two threads at once.

    Args:
        offer: the attempt and its rules.
        names: who may take part, as their certificates name them.
        policy: the coordinator's own minimums.
        registry: participants and their keys; None only in level `passive`.

    Raises (messages of participants):
        Rejected: this message was not taken.
    Raises (closing a phase, `unmask`):
        Aborted: the attempt is over.
        RuntimeError: the phase is another one; a defect of the caller.
    """

    def __init__(
        self, offer: Offer, names: Sequence[str], policy: AggregatorPolicy, registry: Registry | None
    ) -> None:
        if offer.level is Level.ACTIVE and registry is None:
            raise ValueError("level active needs the registry of participants")
        self.phase = Phase.OFFERED
        self.offer = offer
        self.roster: Roster | None = None
        self.sharers: Sharers | None = None
        self.survivors: Survivors | None = None
        self.proof: SetProof | None = None
        self.opened: Opened | None = None
        self._invited = frozenset(names)
        self._policy = policy
        self._keys = keys_of(registry)
        self._reason = AbortReason.ABANDONED
        self._layout: Layout
        self._adverts: dict[str, Advert] = {}
        self._bundles: dict[str, ShareBundle] = {}
        self._deliveries: dict[str, ShareDelivery] = {}
        self._uploads: set[str] = set()
        self._signatures: dict[str, SetSignature] = {}
        self._revealed: Opening | None = None
        self._lost: set[str] = set()
        self._expelled: set[str] = set()

    def __repr__(self) -> str:
        return f"Aggregator({self.phase.value}, {len(self.members)} members)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an attempt is kept by `state`, not by pickling")

    # ------------------------------------------------------------------------------------------------ phases

    @property
    def members(self) -> frozenset[str]:
        """Who has a part in the present phase."""
        match self.phase:
            case Phase.OFFERED:
                everybody: Collection[str] = self._invited
            case Phase.ROSTERED:
                everybody = self._adverts
            case Phase.UPLOADING:
                everybody = self._sharers
            case _:
                everybody = self._survivors
        return frozenset(everybody) - self._expelled

    def missing(self) -> frozenset[str]:
        """Members the present phase still waits for: neither heard nor lost."""
        return self.members - self._heard() - self._lost

    def complete(self) -> bool:
        """Whether the present phase has everything it can still get."""
        return not self.missing()

    def may_close(self) -> bool:
        """Whether the present phase has enough to be closed (REVEALING, READY: to be opened)."""
        heard = self._heard() - self._expelled
        match self.phase:
            case Phase.OFFERED:
                return self._feasible(heard)
            case Phase.ROSTERED | Phase.UPLOADING:
                return len(heard) >= self.least and not self._layout.short_of_holders(heard)
            case Phase.SIGNING:
                return len(heard) >= self._layout.quorum
            case Phase.REVEALING:
                return not self._opening.unknown()
            case Phase.READY:
                return True
            case Phase.ABORTED:
                return False

    def lost(self, sender: str) -> None:
        """A participant went away: nothing is waited for from it. If it comes back in time it is heard again."""
        self._lost.add(sender)

    def abort(self, reason: AbortReason) -> None:
        """Give the attempt up; every secret goes."""
        self.phase, self._reason = Phase.ABORTED, reason
        self._bundles, self._deliveries, self._revealed = {}, {}, None

    # ---------------------------------------------------------------------------------------------- messages

    def advert(self, sender: str, advert: Advert) -> None:
        """Take a participant's keys."""
        if self._take(Phase.OFFERED, sender, advert.name, self._adverts.get(sender), advert):
            return
        self._reject_unless(
            len(self._adverts) < self.offer.participants, AbortReason.ROSTER_SIZE, "the roster is full"
        )
        self._reject_unless(
            keys.is_public(advert.channel_key) and keys.is_public(advert.mask_key),
            AbortReason.BAD_KEY,
            "no point of large order",
            sender,
        )
        if self.offer.level is Level.ACTIVE:
            key = self._keys.get(sender, "")
            self._reject_unless(key != "", AbortReason.NOT_REGISTERED, "not in the registry", sender)
            self._reject_unless(
                advert_is_signed(key, digest(self.offer), advert),
                AbortReason.BAD_SIGNATURE,
                "not signed by it for this offer",
                sender,
            )
        taken = {value for each in self._adverts.values() for value in _unique(each)}
        own = _unique(advert)
        self._reject_unless(
            len(set(own)) == len(own) and taken.isdisjoint(own),
            AbortReason.DUPLICATE_KEY,
            "another advert has the same key, nonce or commitment",
            sender,
        )
        self._adverts[sender] = advert

    def close_adverts(self) -> Roster:
        """The roster of all that advertised."""
        self._expect(Phase.OFFERED)
        adverts = {name: self._adverts[name] for name in sorted(self._adverts) if name not in self._expelled}
        self._abort_unless(
            len(adverts) >= self._policy.min_participants,
            AbortReason.TOO_FEW_ADVERTS,
            f"{len(adverts)} of {self._policy.min_participants}",
        )
        roster = Roster(adverts=tuple(adverts.values()))
        try:
            self._layout = Layout.of(self.offer, roster)
        except ValueError as error:
            self.abort(AbortReason.NO_THRESHOLD)
            raise Aborted(AbortReason.NO_THRESHOLD, str(error)) from None
        self._abort_unless(
            len(adverts) - self._layout.corrupt >= self._policy.min_honest,
            AbortReason.TOO_FEW_ADVERTS,
            f"{len(adverts)}, {self._layout.corrupt} assumed corrupt: {self._policy.min_honest} honest are needed",
        )
        self._adverts, self.roster, self.phase = adverts, roster, Phase.ROSTERED
        return roster

    def shares(self, sender: str, bundle: ShareBundle) -> None:
        """Take a participant's encrypted shares."""
        if self._take(Phase.ROSTERED, sender, bundle.sender, self._bundles.get(sender), bundle):
            return
        self._reject_unless(
            tuple(entry.peer for entry in bundle.entries) == self._layout.neighbours(sender),
            AbortReason.WRONG_RECIPIENTS,
            "not for exactly its neighbours",
            sender,
        )
        self._bundles[sender] = bundle

    def close_shares(self) -> dict[str, ShareDelivery]:
        """Who shared, and what each of them is to get."""
        self._expect(Phase.ROSTERED)
        bundles = {name: self._bundles[name] for name in sorted(self._bundles) if name not in self._expelled}
        self._check_survival(bundles, AbortReason.TOO_FEW_SHARERS)
        letters: dict[str, list[ShareEntry]] = {name: [] for name in bundles}
        for sender, bundle in bundles.items():
            for entry in bundle.entries:
                if entry.peer in letters:
                    letters[entry.peer].append(
                        ShareEntry(peer=sender, nonce=entry.nonce, ciphertext=entry.ciphertext)
                    )
        names = tuple(bundles)
        self._deliveries = {
            name: ShareDelivery(recipient=name, sharers=names, entries=tuple(entries))
            for name, entries in letters.items()
        }
        self._bundles, self.sharers, self.phase = {}, Sharers(names=names), Phase.UPLOADING
        return dict(self._deliveries)

    @property
    def sharers_digest(self) -> bytes:
        """32 bytes masked uploads refer to; from UPLOADING on."""
        assert self.sharers is not None  # set by `close_shares`
        return keys.sharers_digest(self._layout.context, self.sharers.names)

    def uploaded(self, sender: str) -> None:
        """A participant's masked vector was verified and kept."""
        self._check_sender(Phase.UPLOADING, sender)
        self._lost.discard(sender)
        self._uploads.add(sender)

    def close_uploads(self) -> Survivors:
        """Whose vectors are in the sum. Keep `state` before telling anybody."""
        self._expect(Phase.UPLOADING)
        names = sorted(self._uploads - self._expelled)
        self._check_survival(names, AbortReason.TOO_FEW_SURVIVORS)
        self.survivors = Survivors(sharers_digest=self.sharers_digest, names=tuple(names))
        self._revealed = Opening(self._layout, self._sharers, names)
        self._deliveries = {}
        self.phase = Phase.SIGNING if self.offer.level is Level.ACTIVE else Phase.REVEALING
        return self.survivors

    def signature(self, sender: str, signature: SetSignature) -> None:
        """Take a participant's signature of the survivor set."""
        if self._take(Phase.SIGNING, sender, signature.name, self._signatures.get(sender), signature):
            return
        assert self.survivors is not None  # the phase says so
        self._reject_unless(
            survivors_are_signed(self._keys[sender], self.survivors, signature),
            AbortReason.BAD_SIGNATURE,
            "it did not sign this survivor set",
            sender,
        )
        self._signatures[sender] = signature

    def close_signatures(self) -> SetProof:
        """The signatures everybody is to see."""
        self._expect(Phase.SIGNING)
        signatures = [self._signatures[name] for name in sorted(self._signatures)]
        self._abort_unless(
            len(signatures) >= self._layout.quorum,
            AbortReason.TOO_FEW_SIGNATURES,
            f"{len(signatures)} of {self._layout.quorum}",
        )
        self.proof, self.phase = SetProof(signatures=tuple(signatures)), Phase.REVEALING
        return self.proof

    def reveal(self, sender: str, reveal: Reveal) -> None:
        """Take a participant's shares. Keep `state` before `unmask`."""
        before = None if self._revealed is None else self._revealed.reveals.get(sender)
        if self._take(Phase.REVEALING, sender, reveal.name, before, reveal):
            return
        self._reject_unless(
            [(entry.about, entry.kind) for entry in reveal.entries] == self._opening.due_from(sender),
            AbortReason.WRONG_REVEAL,
            "not the one share due for each of its neighbours",
            sender,
        )
        self._reject_unless(
            all(keys.is_element(entry.share) for entry in reveal.entries),
            AbortReason.BAD_SHARE,
            "a share is out of range",
            sender,
        )
        self._opening.add(reveal)

    def rebuilding(self) -> Rebuilding | None:
        """The search for secrets that is due; None before enough is revealed, when nothing new was, or while one runs.

        It may run in another thread while this object is used; its end is told by `rebuilt`.
        """
        return self._opening.rebuilding() if self.phase is Phase.REVEALING else None

    def rebuilt(self, done: Rebuilding) -> None:
        """A search came to its end; of no consequence if the attempt did before."""
        if self._revealed is not None:
            self._revealed.rebuilt(done)

    def rebuild(self) -> None:
        """Do what is due at once."""
        work = self.rebuilding()
        if work is not None:
            while work.step():
                pass
            self.rebuilt(work)

    @property
    def searching(self) -> bool:
        """Whether a search for secrets is due or under way; from SIGNING on."""
        return self._opening.searching

    @property
    def short(self) -> bool:
        """Whether a wanted secret has too few shares; from SIGNING on."""
        return bool(self._opening.short())

    @property
    def unverified(self) -> tuple[str, ...]:
        """Whose wanted secrets are not rebuilt; from SIGNING on."""
        return tuple(name for name, _ in self._opening.unknown())

    def unmask(self) -> list[MaskKey]:
        """The masks that are in the sum of the survivors' vectors, with the sign they have there: to be subtracted."""
        self._expect(Phase.REVEALING, Phase.READY)
        self._abort_unless(
            not self._opening.short(),
            AbortReason.TOO_FEW_REVEALS,
            f"only {len(self._opening.reveals)} revealed",
        )
        unknown = self.unverified
        self._abort_unless(
            not unknown,
            AbortReason.UNVERIFIABLE_SECRET,
            "no choice of shares fits what was advertised by " + ", ".join(unknown[:8]),
        )
        self.phase = Phase.READY
        return self._opening.masks()

    def finish(self, opened_digest: bytes, next_model_digest: bytes) -> Opened:
        """The end, for everybody and for the transcript; every secret goes.

        Args:
            opened_digest: SHA-256 of the opened ring vector, 32 bytes.
            next_model_digest: 32 bytes.
        """
        self._expect(Phase.READY)
        self.opened = Opened(
            opened_digest=opened_digest,
            survivors=len(self._survivors),
            next_model_digest=next_model_digest,
        )
        self._revealed = None
        return self.opened

    # -------------------------------------------------------------------------------------------- what is kept

    @property
    def transcript(self) -> list[bytes]:
        """The public messages so far, encoded; nothing secret is among them."""
        public: tuple[Message | None, ...] = (
            self.offer,
            self.roster,
            self.sharers,
            self.survivors,
            self.proof,
            self.opened,
        )
        return [encode(each) for each in public if each is not None]

    def state(self) -> bytes:
        """What `restore` needs, from the survivor set on. Secret as soon as there are reveals in it."""
        self._expect(Phase.SIGNING, Phase.REVEALING, Phase.READY)
        received: tuple[Message, ...] = (*self._signatures.values(), *self._opening.reveals.values())
        return journal.write([*self.transcript, *(encode(each) for each in received)])

    @classmethod
    def restore(cls, state: bytes, policy: AggregatorPolicy, registry: Registry | None) -> Aggregator:
        """The attempt of a `state`.

        Raises:
            MalformedMessage: it is none.
            Rejected, Aborted: it contradicts itself, or the registry or policy that is given now.
        """
        kept = journal.read(state)
        restored = cls(kept.offer, [each.name for each in kept.roster.adverts], policy, registry)
        for advert in kept.roster.adverts:
            restored.advert(advert.name, advert)
        restored.close_adverts()
        restored._bundles = {
            name: ShareBundle(sender=name, entries=())
            for name in kept.sharers.names
            if name in restored._adverts
        }
        restored.close_shares()
        for name in kept.survivors.names:
            restored.uploaded(name)
        restored.close_uploads()
        for signature in kept.signatures:
            restored.signature(signature.name, signature)
        if kept.proof is not None:
            restored.proof, restored.phase = kept.proof, Phase.REVEALING
        for reveal in kept.reveals:
            restored.reveal(reveal.name, reveal)
        return restored

    @property
    def least(self) -> int:
        """The smallest survivor set that is asked to reveal; once there is a roster."""
        return least_survivors(self._policy, self._layout)

    @property
    def honest(self) -> int:
        """How many of the survivors are honest at least, if no more are corrupt than assumed."""
        return len(self._survivors) - self._layout.corrupt

    # ------------------------------------------------------------------------------------------------- inside

    @property
    def wrong(self) -> frozenset[str]:
        """Holders whose revealed shares did not fit: they lied, or were given such by the secrets' owners."""
        return frozenset() if self._revealed is None else self._revealed.wrong

    @property
    def _opening(self) -> Opening:
        assert self._revealed is not None  # made with the survivor set, dropped with the attempt
        return self._revealed

    @property
    def _sharers(self) -> tuple[str, ...]:
        return () if self.sharers is None else self.sharers.names

    @property
    def _survivors(self) -> tuple[str, ...]:
        return () if self.survivors is None else self.survivors.names

    def _heard(self) -> frozenset[str]:
        heard: Mapping[Phase, Collection[str]] = {
            Phase.OFFERED: self._adverts,
            Phase.ROSTERED: self._bundles,
            Phase.UPLOADING: self._uploads,
            Phase.SIGNING: self._signatures,
            Phase.REVEALING: () if self._revealed is None else self._revealed.reveals,
        }
        return frozenset(heard.get(self.phase, self.members))

    def _feasible(self, names: Collection[str]) -> bool:
        if len(names) < self._policy.min_participants:
            return False
        roster = Roster(adverts=tuple(self._adverts[name] for name in sorted(names)))
        try:
            layout = Layout.of(self.offer, roster)
        except ValueError:
            return False
        return len(names) >= least_survivors(self._policy, layout)

    def _check_survival(self, names: Collection[str], reason: AbortReason) -> None:
        self._abort_unless(len(names) >= self.least, reason, f"{len(names)} of at least {self.least}")
        short = self._layout.short_of_holders(names)
        self._abort_unless(not short, reason, f"too few neighbours of {len(short)} participants are left")

    def _take(self, phase: Phase, sender: str, name: str, before: Taken | None, message: Taken) -> bool:
        """Whether the very same message was taken before; a rejection unless it is this sender's turn."""
        self._check_sender(phase, sender)
        self._reject_unless(name == sender, AbortReason.WRONG_NAME, "it names another participant", sender)
        self._reject_unless(
            before in (None, message),
            AbortReason.CONFLICTING_MESSAGE,
            "it said something else before",
            sender,
        )
        self._lost.discard(sender)
        return before is not None

    def _check_sender(self, phase: Phase, sender: str) -> None:
        self._reject_unless(self.phase is phase, AbortReason.UNEXPECTED_MESSAGE, f"the phase is {self.phase}")
        self._reject_unless(
            sender not in self._expelled, AbortReason.EXPELLED, "it broke the protocol before"
        )
        self._reject_unless(
            sender in self.members, AbortReason.UNKNOWN_SENDER, "it has no part in this phase"
        )

    def _reject_unless(
        self, holds: bool, reason: AbortReason, detail: str, expelled: str | None = None
    ) -> None:
        if holds:
            return
        if expelled is not None:
            self._expelled.add(expelled)
        raise Rejected(reason, detail, expelled=expelled is not None)

    def _abort_unless(self, holds: bool, reason: AbortReason, detail: str) -> None:
        if not holds:
            self.abort(reason)
            raise Aborted(reason, detail)

    def _expect(self, *phases: Phase) -> None:
        if self.phase is Phase.ABORTED:
            raise Aborted(self._reason, "the attempt was aborted before")
        if self.phase not in phases:
            raise RuntimeError(f"not in phase {self.phase}")


def _unique(advert: Advert) -> tuple[bytes, ...]:
    return (advert.channel_key, advert.mask_key, advert.nonce, advert.commitment)
