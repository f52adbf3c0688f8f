"""What the signed registry of participants lets this worker fold: checked by the worker itself, before it makes keys.

The coordinator says which clients a task is for; whoever signs the registry says which of them may be in this worker's
masked sums, and how much they may weigh there together.
"""

from __future__ import annotations

from collections.abc import Collection

from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.trust.participants import Registry


def check_own_entry(
    registry: Registry, worker: str, clients: Collection[str], max_client_weight: int
) -> None:
    """Whether the worker's own entry allows these clients, at the most each may weigh.

    Args:
        registry: pinned, with an entry of the worker.
        worker: this one.
        clients: of the task.
        max_client_weight: the run's cap of a client's weight in a masked sum.

    Raises:
        Refused: a client is not listed (not_registered), or they may weigh too much (policy_weight).
    """
    (own,) = (each for each in registry.participants if each.worker == worker)
    unlisted = sorted(set(clients) - set(own.clients))
    if unlisted:
        raise Refused(
            AbortReason.NOT_REGISTERED,
            f"version {registry.version} of the registry of participants does not list client {unlisted[0]} for worker"
            f" {worker}: have its signer enter it",
        )
    weight = len(set(clients)) * max_client_weight
    if weight > own.max_weight:
        raise Refused(
            AbortReason.POLICY_WEIGHT,
            f"{len(set(clients))} clients of at most {max_client_weight} each may weigh {weight} together, version"
            f" {registry.version} of the registry of participants allows worker {worker} {own.max_weight}",
        )
