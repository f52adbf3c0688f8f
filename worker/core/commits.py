"""What commits and fates do to held updates and client states. Part of the session machine.

The one place that promotes a pending state: only for a client that a commit included, only with the update of
exactly that round, only forwards, and under secure aggregation only an update that this worker masked. (A client that is no longer hosted here may still have an update whose fate is
open; its state must be settled before it can be exported.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ssd_wire.messages import Committed, HeldFate, UpdateKey, Welcome
from worker.core import effects
from worker.core.effects import Effect
from worker.core.secagg_client import in_a_sum, summed_of
from worker.core.state import Session


def apply_fates(
    session: Session, welcome: Welcome, out: list[Effect]
) -> tuple[Session, frozenset[str], dict[str, int]]:
    """Act on the fates of the hello's held updates.

    Also returns the clients whose state advanced, and client -> round of those whose state is lost: their update is said
    to be committed, and this worker put it into no sum.
    """
    fates = dict(zip(session.hello_held, welcome.held_fates, strict=True))
    said = [key for key, fate in fates.items() if fate is HeldFate.COMMITTED]
    committed = [key for key in said if in_a_sum(session, key)]
    strange = tuple(key for key in said if key not in committed)
    session = _promote(session, committed, out)
    session = drop(session, strange, "in_no_sum", out)
    lost = {
        key.client: key.round for key in strange if session.clients.get(key.client, key.round) < key.round
    }
    discarded = tuple(key for key, fate in fates.items() if fate is HeldFate.DISCARDED)
    session = drop(session, discarded, "discarded", out)
    return session, frozenset(key.client for key in committed), lost


def apply_commit(session: Session, commit: Committed, out: list[Effect]) -> tuple[Session, tuple[str, ...]]:
    """Promote what the commit included and drop what it left behind.

    Also returns the hosted clients it included whose pending state is not here: their state is lost.
    """
    included = frozenset(commit.included)
    keys = [
        key
        for key in sorted(session.held)
        if key.client in included and key.round == commit.round and in_a_sum(session, key)
    ]
    session = _promote(session, keys, out)
    stale = tuple(
        key
        for key in sorted(session.held)
        # Of a client hosted elsewhere by now the message says nothing; the next hello asks about it.
        if key.client in session.clients
        and (key.round <= commit.round or key.base_digest != commit.version.model_digest)
    )
    session = drop(session, stale, "base_moved_on", out)
    lost = tuple(c for c in commit.included if c in session.clients and session.clients[c] < commit.round)
    return session, lost


def _promote(session: Session, keys: Iterable[UpdateKey], out: list[Effect]) -> Session:
    rounds = dict(session.clients)
    promoted = []
    for key in sorted(keys, key=lambda key: key.round):
        hosted = key.client in rounds
        if key not in session.held or (hosted and rounds[key.client] >= key.round):
            continue
        if hosted:
            rounds[key.client] = key.round
        promoted.append(key)
    if not promoted:
        return session
    out.append(effects.Promote(keys=tuple(promoted)))
    return _without(replace(session, clients=rounds), promoted)


def drop(session: Session, keys: tuple[UpdateKey, ...], reason: str, out: list[Effect]) -> Session:
    """Forget these held updates and their pending states."""
    present = tuple(key for key in keys if key in session.held)
    if not present:
        return session
    out.append(effects.DropUpdates(keys=present, reason=reason))
    return _without(session, present)


def _without(session: Session, keys: Collection[UpdateKey]) -> Session:
    """Without these held updates, and what is remembered of their masks."""
    held = {key: finished for key, finished in session.held.items() if key not in keys}
    return replace(session, held=held, summed=session.summed - {summed_of(key) for key in keys})
