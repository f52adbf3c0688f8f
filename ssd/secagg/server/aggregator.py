"""The coordinator's side of one attempt of secure aggregation.

    OFFERED -> ROSTERED -> UPLOADING -> SIGNING (level `active`) -> REVEALING -> READY
       and from each of them ABORTED

Rules it keeps:

- A message is taken or rejected whole; a rejected one changes nothing, except that a sender that broke the protocol is
  expelled: for the rest of the attempt it counts as dropped out. The very same message again changes nothing.
- Who is in a set is decided when its phase is closed, never later.
- What is rebuilt is verified (`ssd.secagg.server.rebuilding`). Pairs that both dropped out have no mask in the sum: skipped.
- An abort is final; the attempt's round id must not be used again.

Each check is a call of `Members.reject_unless` or `_abort_unless`; `tests/mutation/` takes them out one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NoReturn

from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.checks import least_survivors
from ssd.secagg.protocol.errors import Aborted, AbortReason
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
    encode,
)
from ssd.secagg.protocol.policy import AggregatorPolicy
from ssd.secagg.protocol.signatures import keys_of, survivors_are_signed
from ssd.secagg.server import journal
from ssd.secagg.server.advert_checks import check_advert
from ssd.secagg.server.members import Members, Phase
from ssd.secagg.server.opening import Opening, Rebuilding
from ssd.trust.participants import Registry


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
        self.offer = offer
        self.roster: Roster | None = None
        self.sharers: Sharers | None = None
        self.survivors: Survivors | None = None
        self.proof: SetProof | None = None
        self.opened: Opened | None = None
        self._members = Members(names)
        self._policy = policy
        self._keys = keys_of(registry)
        self._reason = AbortReason.ABANDONED
        self._layout: Layout
        self._adverts: dict[str, Advert] = {}
        self._bundles: dict[str, ShareBundle] = {}
        self._deliveries: dict[str, ShareDelivery] = {}
        self._signatures: dict[str, SetSignature] = {}
        self._revealed: Opening | None = None

    def __repr__(self) -> str:
        return f"Aggregator({self.phase.value}, {len(self.members)} members)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an attempt is kept by `state`, not by pickling")

    # ------------------------------------------------------------------------------------------------ phases

    @property
    def phase(self) -> Phase:
        """What is waited for."""
        return self._members.phase

    @property
    def members(self) -> frozenset[str]:
        """Who has a part in the present phase."""
        return self._members.present

    def missing(self) -> frozenset[str]:
        """Members the present phase still waits for: neither heard nor lost."""
        return self._members.missing()

    def complete(self) -> bool:
        """Whether the present phase has everything it can still get."""
        return not self.missing()

    def may_close(self) -> bool:
        """Whether the present phase has enough to be closed (REVEALING, READY: to be opened)."""
        answered = self._members.answered
        match self.phase:
            case Phase.OFFERED:
                return self._feasible(answered)
            case Phase.ROSTERED | Phase.UPLOADING:
                return len(answered) >= self.least and not self._layout.short_of_holders(answered)
            case Phase.SIGNING:
                return len(answered) >= self._layout.quorum
            case Phase.REVEALING:
                return not self._opening.unknown()
            case Phase.READY:
                return True
            case Phase.ABORTED:
                return False

    def lost(self, sender: str) -> None:
        """Wait for nothing from a participant that went away. If it comes back in time it is heard again."""
        self._members.stop_waiting_for(sender)

    def abort(self, reason: AbortReason) -> None:
        """Give the attempt up and drop every secret."""
        self._members.enter(Phase.ABORTED, self._survivors)
        self._reason = reason
        self._bundles, self._deliveries, self._revealed = {}, {}, None

    # ---------------------------------------------------------------------------------------------- messages

    def advert(self, sender: str, advert: Advert) -> None:
        """Take a participant's keys."""
        if self._members.was_taken(Phase.OFFERED, sender, advert.name, self._adverts.get(sender), advert):
            return
        check_advert(self._members, self.offer, advert, self._adverts.values(), self._keys)
        self._adverts[sender] = advert
        self._members.note_answer(sender)

    def close_adverts(self) -> Roster:
        """The roster of all that advertised."""
        self._expect(Phase.OFFERED)
        adverts = {
            name: self._adverts[name] for name in sorted(self._adverts) if name not in self._members.expelled
        }
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
        self._adverts, self.roster = adverts, roster
        self._members.enter(Phase.ROSTERED, adverts)
        return roster

    def shares(self, sender: str, bundle: ShareBundle) -> None:
        """Take a participant's encrypted shares."""
        if self._members.was_taken(Phase.ROSTERED, sender, bundle.sender, self._bundles.get(sender), bundle):
            return
        self._members.reject_unless(
            tuple(entry.peer for entry in bundle.entries) == self._layout.neighbours(sender),
            AbortReason.WRONG_RECIPIENTS,
            "not for exactly its neighbours",
            sender,
        )
        self._bundles[sender] = bundle
        self._members.note_answer(sender)

    def close_shares(self) -> dict[str, ShareDelivery]:
        """Who shared, and what each of them is to get."""
        self._expect(Phase.ROSTERED)
        bundles = {
            name: self._bundles[name] for name in sorted(self._bundles) if name not in self._members.expelled
        }
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
        self._bundles, self.sharers = {}, Sharers(names=names)
        self._members.enter(Phase.UPLOADING, names)
        return dict(self._deliveries)

    @property
    def sharers_digest(self) -> bytes:
        """32 bytes masked uploads refer to; from UPLOADING on."""
        assert self.sharers is not None  # set by `close_shares`
        return keys.sharers_digest(self._layout.context, self.sharers.names)

    def uploaded(self, sender: str) -> None:
        """A participant's masked vector was verified and kept."""
        self._members.check_sender(Phase.UPLOADING, sender)
        self._members.wait_again_for(sender)
        self._members.note_answer(sender)

    def close_uploads(self) -> Survivors:
        """Whose vectors are in the sum. Keep `state` before telling anybody."""
        self._expect(Phase.UPLOADING)
        names = sorted(self._members.answered)
        self._check_survival(names, AbortReason.TOO_FEW_SURVIVORS)
        self.survivors = Survivors(sharers_digest=self.sharers_digest, names=tuple(names))
        self._revealed = Opening(self._layout, self._sharers, names)
        self._deliveries = {}
        self._members.enter(Phase.SIGNING if self.offer.level is Level.ACTIVE else Phase.REVEALING, names)
        return self.survivors

    def signature(self, sender: str, signature: SetSignature) -> None:
        """Take a participant's signature of the survivor set."""
        if self._members.was_taken(
            Phase.SIGNING, sender, signature.name, self._signatures.get(sender), signature
        ):
            return
        assert self.survivors is not None  # the phase says so
        self._members.reject_unless(
            survivors_are_signed(self._keys[sender], self.survivors, signature),
            AbortReason.BAD_SIGNATURE,
            "it did not sign this survivor set",
            sender,
        )
        self._signatures[sender] = signature
        self._members.note_answer(sender)

    def close_signatures(self) -> SetProof:
        """The signatures everybody is to see."""
        self._expect(Phase.SIGNING)
        signatures = [self._signatures[name] for name in sorted(self._signatures)]
        self._abort_unless(
            len(signatures) >= self._layout.quorum,
            AbortReason.TOO_FEW_SIGNATURES,
            f"{len(signatures)} of {self._layout.quorum}",
        )
        self.proof = SetProof(signatures=tuple(signatures))
        self._members.enter(Phase.REVEALING, self._survivors)
        return self.proof

    def reveal(self, sender: str, reveal: Reveal) -> None:
        """Take a participant's shares. Keep `state` before `unmask`."""
        before = None if self._revealed is None else self._revealed.reveals.get(sender)
        if self._members.was_taken(Phase.REVEALING, sender, reveal.name, before, reveal):
            return
        self._members.reject_unless(
            [(entry.about, entry.kind) for entry in reveal.entries] == self._opening.due_from(sender),
            AbortReason.WRONG_REVEAL,
            "not the one share due for each of its neighbours",
            sender,
        )
        self._members.reject_unless(
            all(keys.is_element(entry.share) for entry in reveal.entries),
            AbortReason.BAD_SHARE,
            "a share is out of range",
            sender,
        )
        self._opening.add(reveal)
        self._members.note_answer(sender)

    def rebuilding(self) -> Rebuilding | None:
        """The search for secrets that is due; None before enough is revealed, when nothing new was, or while one runs.

        It may run in another thread while this object is used. Whoever ran it hands it to `rebuilt`.
        """
        return self._opening.rebuilding() if self.phase is Phase.REVEALING else None

    def rebuilt(self, done: Rebuilding) -> None:
        """Take the result of a search that came to its end. It is dropped if the attempt ended before."""
        if self._revealed is not None:
            self._revealed.rebuilt(done)

    def rebuild(self) -> None:
        """Run the search that is due, if there is one, to its end in this thread."""
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
        self._members.enter(Phase.READY, self._survivors)
        return self._opening.masks()

    def finish(self, opened_digest: bytes, next_model_digest: bytes) -> Opened:
        """End the attempt: drop every secret and return what everybody, and the transcript, is to know.

        Args:
            opened_digest: SHA-256 of the opened ring vector, 32 bytes.
            next_model_digest: SHA-256 of the model that the round makes, 32 bytes.
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
        """Make the attempt again from what `state` returned.

        Raises:
            MalformedMessage: the bytes are no such state.
            Rejected, Aborted: the state contradicts itself, or the registry or policy that is given now.
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
            restored.proof = kept.proof
            restored._members.enter(Phase.REVEALING, restored._survivors)
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

    def _abort_unless(self, holds: bool, reason: AbortReason, detail: str) -> None:
        if not holds:
            self.abort(reason)
            raise Aborted(reason, detail)

    def _expect(self, *phases: Phase) -> None:
        if self.phase is Phase.ABORTED:
            raise Aborted(self._reason, "the attempt was aborted before")
        if self.phase not in phases:
            raise RuntimeError(f"not in phase {self.phase}")
