"""From revealed shares to the masks in the sum: what is due from whom, which secrets are known, what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import Kind, Reveal
from ssd.secagg.server.rebuilding import MAX_TRIES_IN_ALL, Rebuilt, Search

Secret = tuple[str, Kind]
"""Whose, and which of its two."""


class Rebuilding:
    """One go at the secrets that shares came for since the last: a computation of its own, for any thread.

    Args:
        searches: where the search for each secret stands; they are moved on.
        shares: of each, by holder, in the order they came.
        wrong: holders whose shares did not fit before.
        left: choices that may still be tried beside one for every share.
    """

    def __init__(
        self,
        searches: Mapping[Secret, Search],
        shares: Mapping[Secret, Mapping[str, bytes]],
        wrong: frozenset[str],
        left: int,
    ) -> None:
        self._searches = dict(searches)
        self._shares = {secret: dict(shares[secret]) for secret in searches}
        self._todo = list(searches)
        self.wrong, self.left = wrong, left
        self.found: dict[Secret, Rebuilt] = {}

    def __repr__(self) -> str:
        return f"Rebuilding({len(self._todo)} to do)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not to be pickled")

    def step(self) -> bool:
        """Search for the next secret; whether there is another one."""
        if self._todo:
            secret = self._todo.pop(0)
            search = self._searches[secret]
            before = search.tried
            rebuilt = search.go_on(self._shares[secret], self.wrong, self.left)
            self.left = max(0, self.left - (search.tried - before))
            if rebuilt is not None:
                self.found[secret] = rebuilt
                self.wrong |= rebuilt.wrong
        return bool(self._todo)


class Opening:
    """The shares of one survivor set. Secret as soon as there is one; not to be printed or pickled.

    Args:
        layout: of the round.
        sharers: who shared, sorted.
        survivors: whose masked vectors are in the sum, sorted.
    """

    def __init__(self, layout: Layout, sharers: Sequence[str], survivors: Sequence[str]) -> None:
        self._layout = layout
        self._sharers = tuple(sharers)
        self._digest = keys.sharers_digest(layout.context, sharers)
        self._alive = frozenset(survivors)
        self._rebuilt: dict[Secret, bytes] = {}
        self._shares: dict[Secret, dict[str, bytes]] = {}
        self._searches: dict[Secret, Search] = {}
        self._running: Rebuilding | None = None
        self._left = MAX_TRIES_IN_ALL
        self.reveals: dict[str, Reveal] = {}
        self.wrong: frozenset[str] = frozenset()
        """Holders whose shares did not fit: they lied, or were given such."""
        # A pair that dropped out together has no mask in the sum: nobody needs to know its secrets.
        beside = [
            each
            for each in self._sharers
            if each not in self._alive and not self._alive.isdisjoint(layout.neighbours(each))
        ]
        self.wanted: tuple[Secret, ...] = (
            *((each, Kind.SELF) for each in survivors),
            *((each, Kind.MASK) for each in beside),
        )

    def __repr__(self) -> str:
        return f"Opening({len(self.reveals)} reveals)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("shares are kept by `Aggregator.state`, not by pickling")

    def due_from(self, sender: str) -> list[Secret]:
        """Of whom a survivor has to reveal which share, sorted by name."""
        near = frozenset(self._sharers).intersection(self._layout.holders(sender))
        return [(each, Kind.SELF if each in self._alive else Kind.MASK) for each in sorted(near)]

    def add(self, reveal: Reveal) -> None:
        """Take a survivor's shares. Nothing is rebuilt here: that can take seconds if somebody lies."""
        self.reveals[reveal.name] = reveal
        for entry in reveal.entries:
            self._shares.setdefault((entry.about, entry.kind), {})[reveal.name] = entry.share

    def rebuilding(self) -> Rebuilding | None:
        """What can be tried now, to be run to its end and given to `rebuilt`.

        None: nothing before more shares come, or before the one under way is at its end.
        """
        due = {} if self._running else self._due()
        self._running = Rebuilding(due, self._shares, self.wrong, self._left) if due else self._running
        return self._running if due else None

    @property
    def searching(self) -> bool:
        """Whether what was revealed so far may still give a secret that is not known."""
        return self._running is not None or bool(self._due())

    def rebuilt(self, done: Rebuilding) -> None:
        """Take what it found."""
        self._running = None
        self._left, self.wrong = done.left, self.wrong | done.wrong
        self._rebuilt |= {secret: rebuilt.secret for secret, rebuilt in done.found.items()}

    def _due(self) -> dict[Secret, Search]:
        if self.short():
            return {}
        searches = {
            secret: self._searches.setdefault(secret, Search(self._layout, *secret))
            for secret in self.unknown()
        }
        return {each: search for each, search in searches.items() if search.covered < len(self._shares[each])}

    def unknown(self) -> list[Secret]:
        """Wanted secrets that are not rebuilt."""
        return [secret for secret in self.wanted if secret not in self._rebuilt]

    def short(self) -> list[Secret]:
        """Unknown secrets with too few shares."""
        return [
            secret for secret in self.unknown() if len(self._shares.get(secret, ())) < self._layout.threshold
        ]

    def masks(self) -> list[MaskKey]:
        """The masks in the sum of the survivors' vectors, with the sign they have there."""
        masks = []
        for owner, kind in self.wanted:
            secret = self._rebuilt[owner, kind]
            if kind is Kind.SELF:
                masks.append(MaskKey(keys.self_key(secret, self._digest, owner), 1))
                continue
            private = keys.mask_private(secret)
            for peer in self._layout.neighbours(owner):
                if peer in self._alive:
                    public = self._layout.adverts[peer].mask_key
                    key = keys.pair_key(private, public, self._digest, owner, peer)
                    masks.append(MaskKey(key, keys.pair_sign(peer, owner)))
        return masks
