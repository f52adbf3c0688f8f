"""What the signed registry of participants lets each worker fold: checked of masked uploads before a byte is taken.

A worker that keeps to the protocol refuses such a round itself; this is for one that does not. What is inside a masked
upload nobody can see: weights are counted as if every client weighed the most a client of the run may.
"""

from __future__ import annotations

from collections.abc import Collection

from coordinator.errors import ClientFault, Reason
from ssd.trust.participants import Registry


def check_entry(registry: Registry, worker: str, clients: Collection[str], max_client_weight: int) -> None:
    """Whether a worker's entry allows a masked upload of these clients.

    Args:
        registry: of the present attempt.
        worker: whose upload it is; it has an entry, or it had no part in the attempt.
        clients: said to be in it.
        max_client_weight: the run's cap of a client's weight in a masked sum.

    Raises:
        ClientFault: client_not_hosted or weight_out_of_range.
    """
    (entry,) = (each for each in registry.participants if each.worker == worker)
    unlisted = sorted(set(clients) - set(entry.clients))
    if unlisted:
        raise ClientFault(
            Reason.CLIENT_NOT_HOSTED,
            f"version {registry.version} of the registry of participants does not list client {unlisted[0]} for worker"
            f" {worker}",
        )
    weight = len(clients) * max_client_weight
    if weight > entry.max_weight:
        raise ClientFault(
            Reason.WEIGHT_OUT_OF_RANGE,
            f"{len(clients)} clients may weigh {weight} together, version {registry.version} of the registry of"
            f" participants allows worker {worker} {entry.max_weight}",
        )
