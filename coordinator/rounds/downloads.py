"""Blobs on their way to workers: model versions, deltas, artefacts, and large messages of the sum's protocol."""

from __future__ import annotations

from coordinator.ports.blobs import BlobReader
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.round_cost import RoundCost
from coordinator.versions.catalogue import Catalogue
from coordinator.workers.sessions import Session


class Downloads:
    """What workers may fetch."""

    def __init__(self, catalogue: Catalogue, round_sum: RoundSum, cost: RoundCost) -> None:
        self._catalogue = catalogue
        self._sum = round_sum
        self._cost = cost

    def open(self, digest: str, session: Session) -> BlobReader:
        """A blob this worker may read: of versions, tasks and the declaration, or a message of the sum to it.

        Raises:
            ClientFault: reason unknown_blob.
        """
        message = self._sum.open_blob(digest, session.worker)
        return self._catalogue.open_blob(digest) if message is None else message

    def sent(self, nbytes: int) -> None:
        """So many bytes went down."""
        self._cost.sent(nbytes)
