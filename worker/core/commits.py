"""What commits and fates do to held updates and client states. Part of the session machine.

The one place that promotes a pending state: only for a client that a commit included, only with the update of
exactly that round, and only forwards. (A client that is no longer hosted here may still have an update whose fate is
open; its state must be settled before it can be exported.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ssd_wire.messages import Committed, HeldFate, UpdateKey, Welcome
from worker.core import effects
from worker.core.effects import Effect
from worker.core.state import Session


def apply_fates(session: Session, welcome: Welcome, out: list[Effect]) -> tuple[Session, frozenset[str]]:
    """Act on the fates of the hello's held updates. Also returns the clients whose state advanced."""
    fates = dict(zip(session.hello_held, welcome.held_fates, strict=True))
    committed = [key for key, fate in fates.items() if fate is HeldFate.COMMITTED]
    session = _promote(session, committed, out)
    discarded = tuple(key for key, fate in fates.items() if fate is HeldFate.DISCARDED)
    session = drop(session, discarded, "discarded", out)
    return session, frozenset(key.client for key in committed)


def apply_commit(session: Session, commit: Committed, out: list[Effect]) -> tuple[Session, tuple[str, ...]]:
    """Promote what the commit included and drop what it left behind.

    Also returns the hosted clients it included whose pending state is not here: their state is lost.
    """
    included = frozenset(commit.included)
    keys = [key for key in sorted(session.held) if key.client in included and key.round == commit.round]
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
    held = {key: finished for key, finished in session.held.items() if key not in promoted}
    return replace(session, clients=rounds, held=held)


def drop(session: Session, keys: tuple[UpdateKey, ...], reason: str, out: list[Effect]) -> Session:
    """Forget these held updates and their pending states."""
    present = tuple(key for key in keys if key in session.held)
    if not present:
        return session
    out.append(effects.DropUpdates(keys=present, reason=reason))
    return replace(session, held={key: value for key, value in session.held.items() if key not in present})
