"""Rebuilding a secret from revealed shares, and never believing the result before it fits what was advertised.

A wrong share gives a wrong secret, and a wrong secret would turn the sum into noise. So what comes out is compared with
the commitment or the public key of the advert. If it does not fit, other choices of holders are tried; whoever's share
is not on the polynomial that fits is named. That holder lied, or the secret's owner gave it a wrong share: nobody can
tell which. An owner that shared another secret than it advertised makes every choice fail: the search is bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice

from ssd.secagg.protocol import keys, shamir
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import Kind, digest

MAX_TRIES = 2_000
"""Choices of holders tried for one secret while shares come in, beside one for every share: enough for any one wrong
share among 1,000 and any two among 60."""
MAX_TRIES_IN_ALL = 20_000
"""Likewise for all secrets of a round together: seconds of one processor, however many lie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """A secret that fits its advert."""

    secret: bytes = field(repr=False)
    wrong: frozenset[str]
    """Holders whose shares do not."""


class Search:
    """The search for one secret: each choice of holders is tried at most once, whenever their shares come.

    Args:
        layout: of the round.
        owner: whose.
        kind: which of its two.
    """

    def __init__(self, layout: Layout, owner: str, kind: Kind) -> None:
        self._layout, self._owner, self._kind = layout, owner, kind
        self._left = MAX_TRIES
        self.covered = 0
        """Shares, in the order they came, of which no choice is left to try."""
        self.tried = 0
        """Choices so far."""

    def go_on(
        self, shares: Mapping[str, bytes], suspects: Collection[str] = (), at_most: int = MAX_TRIES_IN_ALL
    ) -> Rebuilt | None:
        """The owner's secret, or None if no choice that was tried fits.

        Only choices that hold a share that is new are tried. Each new share may use up half of what is left, so that
        early wrong ones do not keep right ones from being tried; one choice, of the newest, it always may.

        Args:
            shares: holder -> 32 bytes below the Shamir prime, in the order they came.
            suspects: holders to take last, as other shares of theirs were wrong.
            at_most: choices beside one for every share.
        """
        came, layout = list(shares), self._layout
        for index in range(max(self.covered, layout.threshold - 1), len(came)):
            self.covered = index + 1
            newest_first = came[index - 1 :: -1]
            others = sorted(newest_first, key=lambda holder: holder in suspects)
            allowed = max(1, min(self._left // 2, at_most))
            for rest in islice(_choices(others, layout.threshold - 1), allowed):
                self._left, at_most, self.tried = max(0, self._left - 1), max(0, at_most - 1), self.tried + 1
                chosen = (came[index], *rest)
                secret = _combine(layout, shares, chosen)
                if _fits(layout, self._owner, self._kind, secret):
                    return Rebuilt(secret=secret, wrong=_wrong(layout, shares, chosen, secret))
        return None


def _choices(ordered: list[str], count: int) -> Iterator[tuple[str, ...]]:
    """The first `count` holders when none, one, two ... of all are left out; no choice twice.

    Those left out stand before the last one chosen: any other would leave the choice as it is. So all work is for a
    choice that is yielded, however few there are.
    """
    if count == 0:
        yield ()
        return
    for last in range(count - 1, len(ordered)):
        before = ordered[:last]
        for out in map(frozenset, combinations(before, last - count + 1)):
            yield (*(holder for holder in before if holder not in out), ordered[last])


def _combine(layout: Layout, shares: Mapping[str, bytes], chosen: Collection[str]) -> bytes:
    return shamir.combine({layout.points[each]: shares[each] for each in chosen}, threshold=layout.threshold)


def _fits(layout: Layout, owner: str, kind: Kind, secret: bytes) -> bool:
    advert = layout.adverts[owner]
    if kind is Kind.SELF:
        return keys.commitment(digest(layout.offer), owner, secret) == advert.commitment
    return keys.public_of(keys.mask_private(secret)) == advert.mask_key


def _wrong(
    layout: Layout, shares: Mapping[str, bytes], chosen: tuple[str, ...], secret: bytes
) -> frozenset[str]:
    """Holders off the polynomial: put in the place of one on it, their share changes its value at zero."""
    return frozenset(
        each
        for each in shares
        if each not in chosen and _combine(layout, shares, (*chosen[1:], each)) != secret
    )
