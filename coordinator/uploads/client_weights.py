"""What the clients of a run weigh: the basis for what one of them may claim, and for who has how much of a sum.

A weight is the client's own word: nobody can tell how many images it has. What can be told is that it claims far more
than the others do. What is remembered comes from commits alone, so that neither the order of arrival nor an abandoned
attempt changes what is taken. After a restart it is learnt anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from coordinator.errors import ClientFault, Reason
from ssd_wire.uploads import Envelope, WeightedClient

LEAST_KNOWN = 3
"""Clients whose weights must be known before one can be called too heavy; and of a sum before a share says anything."""


class ClientWeights:
    """Owned by the driver's loop. Masked uploads say no client's weight and are left out.

    Args:
        ratio: how many times the median client one may weigh; 0: any number.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._known: dict[str, int] = {}
        """Client -> its weight in the newest commit it is in."""
        self._middle = 0
        """The median of them, once there are `LEAST_KNOWN`; every upload asks for it, only a commit changes it."""
        self._present: dict[str, int] = {}
        """Of the present attempt's sum."""

    def begin(self) -> None:
        """Another attempt opens."""
        self._present = {}

    def add(self, envelope: Envelope) -> None:
        """An upload is in the present sum."""
        if not envelope.masked:
            self._present.update({each.client: each.weight for each in envelope.clients})

    def committed(self, clients: Sequence[str]) -> float:
        """The present sum became a version; the share of its weight that its heaviest client has.

        Args:
            clients: those of the sum.

        Returns:
            The share, 0 to 1; 0 where nobody can tell (weights are masked), or where it says nothing: of fewer than
            `LEAST_KNOWN` clients one always has a large part.
        """
        weights = {client: self._present[client] for client in clients if client in self._present}
        self._known.update(weights)
        if len(self._known) >= LEAST_KNOWN:
            self._middle = median_low(self._known.values())
        if len(weights) < max(LEAST_KNOWN, len(clients)):
            return 0.0
        return max(weights.values()) / sum(weights.values())

    def check(self, clients: Sequence[WeightedClient]) -> None:
        """Refuse a client that claims too many times the median weight of the clients of earlier commits.

        Raises:
            ClientFault: reason weight_out_of_range.
        """
        if not self._ratio or not self._middle:
            return
        for each in clients:
            if each.weight > self._ratio * self._middle:
                raise ClientFault(
                    Reason.WEIGHT_OUT_OF_RANGE,
                    f"client {each.client} claims weight {each.weight}, more than {self._ratio:g} times the median"
                    " client's: if that is right, the operator raises limits.max_weight_ratio",
                )
