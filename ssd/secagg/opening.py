"""From revealed shares to the masks in the sum: what is due from whom, which secrets are known, what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ssd.secagg import keys
from ssd.secagg.layout import Layout
from ssd.secagg.masking import MaskKey
from ssd.secagg.messages import Kind, Reveal
from ssd.secagg.rebuilding import rebuild

Secret = tuple[str, Kind]
"""Whose, and which of its two."""


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
        """Take a survivor's shares, and rebuild what can be once there are enough of everything."""
        self.reveals[reveal.name] = reveal
        for entry in reveal.entries:
            self._shares.setdefault((entry.about, entry.kind), {})[reveal.name] = entry.share
        if self.short():
            return
        for owner, kind in self.unknown():
            rebuilt = rebuild(self._layout, owner, kind, self._shares[owner, kind], self.wrong)
            if rebuilt is not None:
                self._rebuilt[owner, kind] = rebuilt.secret
                self.wrong |= rebuilt.wrong

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
