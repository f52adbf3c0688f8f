"""What offer and roster determine: who is whose neighbour, how many must answer, survive and sign.

Everybody computes it; nobody is told. The holders of a participant's shares are its neighbours and itself, and a
holder's place in the roster, counted from 1, is where Shamir's polynomial is evaluated for it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from ssd.secagg.protocol import graph
from ssd.secagg.protocol.keys import ring_seed, round_context
from ssd.secagg.protocol.messages import Advert, Graph, Offer, Roster


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of one round."""

    offer: Offer
    roster: Roster
    context: bytes
    """32 bytes: the round context."""
    neighbour_count: int
    threshold: int
    """Shares that rebuild a secret."""

    @classmethod
    def of(cls, offer: Offer, roster: Roster) -> Layout:
        """The layout for everybody in the roster.

        Raises:
            graph.InfeasibleGraph: no threshold is safe and alive.
            ValueError: fewer than two participants, or a fraction that is none.
        """
        n, fractions = len(roster.adverts), (offer.gamma_ppm, offer.delta_ppm)
        if offer.graph is Graph.RING:
            k, t = graph.search(n, *fractions, offer.level)
        else:
            k, t = n - 1, graph.threshold_complete(n, *fractions, offer.level)
        context = round_context(offer, roster)
        return cls(offer=offer, roster=roster, context=context, neighbour_count=k, threshold=t)

    @cached_property
    def adverts(self) -> dict[str, Advert]:
        """Name -> advert, in roster order."""
        return {advert.name: advert for advert in self.roster.adverts}

    @cached_property
    def points(self) -> dict[str, int]:
        """Name -> where its shares are evaluated."""
        return {name: index + 1 for index, name in enumerate(self.adverts)}

    @property
    def fewest(self) -> int:
        """The smallest set of survivors whose sum may be opened: ceil((1 - delta) * n)."""
        return graph.fewest_survivors(len(self.adverts), self.offer.delta_ppm)

    @property
    def corrupt(self) -> int:
        """How many of the participants are assumed corrupt."""
        return graph.corrupt(len(self.adverts), self.offer.gamma_ppm)

    @property
    def quorum(self) -> int:
        """Signatures of a survivor set: all but the dropouts that are tolerated over the whole attempt, and T with
        2T > n + corrupt, so that no two survivor sets can both have them.

        A bare majority would leave so many unasked that a second sum could be made of them.
        """
        return max((len(self.adverts) + self.corrupt) // 2 + 1, self.fewest)

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Whom a participant masks with and shares to, sorted."""
        names = tuple(self.adverts)
        if self.neighbour_count >= len(names) - 1:
            return tuple(other for other in names if other != name)
        near = graph.neighbours(self._order, self.neighbour_count, self.points[name] - 1)
        return tuple(names[index] for index in near)

    def holders(self, name: str) -> tuple[str, ...]:
        """Who holds shares of a participant's secrets: its neighbours and itself, sorted."""
        return tuple(sorted((*self.neighbours(name), name)))

    def short_of_holders(self, living: Collection[str]) -> list[str]:
        """Those among the living whose secrets the living could not rebuild."""
        among = frozenset(living)
        return [each for each in living if len(among.intersection(self.holders(each))) < self.threshold]

    @cached_property
    def _order(self) -> list[int]:
        return graph.ring_order(ring_seed(self.context, self.roster), len(self.adverts))
