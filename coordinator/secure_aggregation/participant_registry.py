"""The signed registry of participants, as the coordinator reads it: to hand no key on that nobody vouched for."""

from __future__ import annotations

from collections.abc import Callable, Collection

from coordinator.config.sections import SecureAggregationSection
from coordinator.errors import ClientFault, ConfigInvalid, Reason
from ssd.trust.participants import Registry, RegistryRefused, decode


def participants_of(
    section: SecureAggregationSection, federation: str | None
) -> Callable[[], Registry | None]:
    """What reads the registry; it gives None unless the level is `active`.

    Whether the coordinator believes its signer decides nothing for the workers: each checks the file it was given
    against the signer it was told of by other means.
    """
    path = section.registry
    if section.level != "active" or path is None or federation is None:
        return lambda: None

    def read() -> Registry:
        return decode(path.read_bytes(), section.registry_signer, federation)

    try:
        read()
    except (OSError, RegistryRefused) as error:
        raise ConfigInvalid(f"secure_aggregation.registry: {error}") from error
    return read


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
