"""Who may attend with which clients, and what becomes of the work a worker still holds. Pure decisions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coordinator.core.policy import Mode
from coordinator.core.state import RunState
from coordinator.errors import ClientFault, NotPermitted, Reason
from ssd_wire.messages import HeldFate, Hello, UpdateKey

WORKER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
INSTANCE = re.compile(r"[0-9a-f]{32}")
MAX_CLIENTS_PER_WORKER = 100_000


def check_hello(state: RunState, hello: Hello) -> None:
    """Refuse names that are not names and clients that are not this worker's to bring.

    Raises:
        ClientFault: with reason bad_name, client_bound, client_claimed or client_unknown; nothing changed.
    """
    if not WORKER_NAME.fullmatch(hello.worker):
        raise ClientFault(
            Reason.BAD_NAME, "the worker's name must be 1 to 64 of letters, digits, '.', '_', '-'"
        )
    if not INSTANCE.fullmatch(hello.instance):
        raise ClientFault(Reason.BAD_NAME, "the worker's instance id must be 32 hexadecimal digits")
    if not hello.clients:
        return
    if len(hello.clients) > MAX_CLIENTS_PER_WORKER:
        raise ClientFault(Reason.BAD_NAME, f"a worker hosts at most {MAX_CLIENTS_PER_WORKER} clients")
    for client in hello.clients:
        if not CLIENT_NAME.fullmatch(client):
            raise ClientFault(
                Reason.BAD_NAME, "a client's name must be 1 to 128 of letters, digits, '.', '_', '-'"
            )
        if not state.belongs_to(client, hello.worker):
            raise NotPermitted(
                Reason.CLIENT_BOUND,
                f"client {client} does not belong to worker {hello.worker}; if it should, the operator says so with"
                f" `ssd-coordinator clients move {client} --to {hello.worker}`",
            )
        host = state.hosts.get(client)
        if host is not None and host != hello.worker:
            raise ClientFault(
                Reason.CLIENT_CLAIMED,
                f"client {client} is hosted by the connected worker {host}; stop it there first",
            )
    unknown = state.strangers(hello.clients)
    if unknown and population_closed(state):
        raise ClientFault(
            Reason.CLIENT_UNKNOWN,
            f"client {unknown[0]} is not one of this run's clients; a reproducible run takes no others once it is"
            " named or has begun",
        )
    room = state.policy.max_clients
    if state.policy.mode is Mode.REPRODUCIBLE and state.policy.expected_clients is not None:
        room = state.policy.expected_clients
    if unknown and room is not None and len(state.known()) + len(unknown) > room:
        raise ClientFault(
            Reason.CLIENT_UNKNOWN,
            f"the run has room for {room} clients and knows {len(state.known())}; {len(unknown)} more do not fit",
        )


def population_closed(state: RunState) -> bool:
    """Whether clients that are not registered yet are refused."""
    if state.policy.mode is not Mode.REPRODUCIBLE:
        return False
    if state.policy.named_clients or state.indexes:
        return True
    expected = state.policy.expected_clients
    return expected is not None and len(state.clients) >= expected


def held_fate(
    held: UpdateKey,
    *,
    current_base_digest: str,
    digests: Mapping[int, str],
    committed_rounds: Mapping[str, int],
    was_included: bool,
) -> HeldFate:
    """What becomes of a held update.

    Args:
        held: the update the worker named.
        current_base_digest: model digest of the newest version.
        digests: model digest by version number.
        committed_rounds: the coordinator's record of each client's last committed round.
        was_included: whether the commit of `held.round` included the client.

    A client trains at most once per base, so the update of a committed round is the one the commit included
    if and only if the client was included and the base is that round's base.
    """
    if was_included and digests.get(held.round - 1) == held.base_digest:
        # An older commit the client has since moved past can no longer become its current state.
        newest = committed_rounds.get(held.client, 0) == held.round
        return HeldFate.COMMITTED if newest else HeldFate.DISCARDED
    if held.base_digest == current_base_digest:
        return HeldFate.KEEP
    return HeldFate.DISCARDED
