"""The signed registry of participants, as the coordinator reads it: to hand no key on that nobody vouched for."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.config.sections import CoordinatorConfig
from coordinator.errors import ConfigInvalid
from coordinator.rpc.serving.transport import Transport
from ssd.trust.participants import Registry, RegistryRefused, decode


def participants_of(config: CoordinatorConfig, transport: Transport) -> Callable[[], Registry | None]:
    """What reads the registry; it gives None unless the level is `active`.

    Whether the coordinator believes its signer decides nothing for the workers: each checks the file it was given
    against the signer it was told of by other means.
    """
    section = config.secure_aggregation
    path, federation = section.registry, transport.federation
    if section.level != "active" or path is None or federation is None:
        return lambda: None

    def read() -> Registry:
        return decode(path.read_bytes(), section.registry_signer, federation)

    try:
        read()
    except (OSError, RegistryRefused) as error:
        raise ConfigInvalid(f"secure_aggregation.registry: {error}") from error
    return read
