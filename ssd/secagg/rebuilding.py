"""Rebuilding a secret from revealed shares, and never believing the result before it fits what was advertised.

A wrong share gives a wrong secret, and a wrong secret would turn the sum into noise. So what comes out is compared with
the commitment or the public key of the advert. If it does not fit, other choices of holders are tried; whoever's share
is not on the polynomial that fits is named. That holder lied, or the secret's owner gave it a wrong share: nobody can
tell which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice

from ssd.secagg import keys, shamir
from ssd.secagg.layout import Layout
from ssd.secagg.messages import Kind, digest

MAX_TRIES = 2_000
"""Choices of holders tried for one secret: enough for any one wrong share among 1,000 and any two among 60."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """A secret that fits its advert."""

    secret: bytes = field(repr=False)
    wrong: frozenset[str]
    """Holders whose shares do not."""


def rebuild(
    layout: Layout, owner: str, kind: Kind, shares: Mapping[str, bytes], suspects: Collection[str] = ()
) -> Rebuilt | None:
    """The owner's secret, or None if no choice among the first MAX_TRIES fits.

    Args:
        layout: of the round.
        owner: whose.
        kind: which of its two.
        shares: holder -> 32 bytes below the Shamir prime.
        suspects: holders to take last, as other shares of theirs were wrong.
    """
    ordered = sorted(shares, key=lambda holder: (holder in suspects, layout.points[holder]))
    for chosen in islice(_choices(ordered, layout.threshold), MAX_TRIES):
        secret = _combine(layout, shares, chosen)
        if _fits(layout, owner, kind, secret):
            wrong = _wrong(layout, shares, chosen, secret)
            return Rebuilt(secret=secret, wrong=wrong)
    return None


def _choices(ordered: list[str], threshold: int) -> Iterator[tuple[str, ...]]:
    """The first `threshold` holders when none, one, two ... of all are left out; no choice twice."""
    seen = set()
    for excluded in range(len(ordered) - threshold + 1):
        for out in combinations(ordered, excluded):
            chosen = tuple(islice((holder for holder in ordered if holder not in out), threshold))
            if chosen not in seen:
                seen.add(chosen)
                yield chosen


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
