"""Moving a client's state between hosts: one safetensors file with the arrays, run, client and round.

Copying is safe: a host that attends with an outdated record is told so by the coordinator and starts the client's
state anew. What is not safe to copy is a finished update whose fate is open, so such a client is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.numpy

from ssd.export.header import check_header
from ssd.files import no_link
from worker.errors import TransferRefused
from worker.store.files import storage_faults, sync_directory, sync_file
from worker.store.sqlite import SqliteStore

FORMAT = "ssd-client-1"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSummary:
    """What the store holds of one client in one run."""

    run: str
    current_run: bool
    client: str
    last_committed_round: int
    state_bytes: int
    held_updates: int


def list_clients(store: SqliteStore) -> tuple[ClientSummary, ...]:
    """Every client of every run, sorted."""
    out = []
    for run in store.runs():
        stored = store.load_run(run)
        held = [finished.key.client for finished in stored.held]
        for client in sorted(stored.rounds.keys() | set(held)):
            _, state = store.client_state(run, client)
            out.append(
                ClientSummary(
                    run=run,
                    current_run=run == store.current_run(),
                    client=client,
                    last_committed_round=stored.rounds.get(client, 0),
                    state_bytes=state.stat().st_size if state is not None else 0,
                    held_updates=held.count(client),
                )
            )
    return tuple(out)


def export_client(
    store: SqliteStore, client: str, out: Path, *, run: str | None = None, remove: bool = False
) -> None:
    """Write a client's state and record to `out`; with `remove` it leaves this host once the file is safe.

    Raises:
        TransferRefused: the store does not know the client, or holds an update of it whose fate is open.
        StorageFailed: `out` cannot be written.
    """
    run = store.current_run() if run is None else run
    stored = store.load_run(run)
    if any(finished.key.client == client for finished in stored.held):
        raise TransferRefused(
            f"{client} has a finished update whose fate is open; let the worker attend its coordinator once, then "
            "stop it and export again"
        )
    if client not in stored.rounds:
        raise TransferRefused(f"the store holds nothing of client {client} in run {run or '(none)'}")
    number, state = store.client_state(run, client)
    arrays = {} if state is None else safetensors.numpy.load_file(state)
    facts = {"format": FORMAT, "run": run, "client": client, "round": str(number)}
    partial = out.with_name(out.name + ".part")
    with storage_faults(out.parent):
        with open(partial, "wb", opener=no_link) as file:
            file.write(safetensors.numpy.save(arrays, metadata=facts))
        sync_file(partial)
        partial.replace(out)
        sync_directory(out.parent)
    if remove:
        store.forget_client(run, client)


def import_client(store: SqliteStore, source: Path) -> ClientSummary:
    """Take a client's state over from a file of `export_client`.

    Raises:
        TransferRefused: it is no such file, or this store holds a newer state or an open update of the client.
    """
    facts = _facts(source)
    run, client, number = facts["run"], facts["client"], int(facts["round"])
    stored = store.load_run(run)
    if any(finished.key.client == client for finished in stored.held):
        raise TransferRefused(f"this store holds a finished update of {client} whose fate is open")
    if stored.rounds.get(client, 0) > number:
        raise TransferRefused(
            f"this store holds {client} as of round {stored.rounds[client]}, the file only as of round {number}"
        )
    arrays = safetensors.numpy.load_file(source)
    copy = None
    if arrays:
        copy = store.partial_path(f"import-{client}")
        with storage_faults(copy.parent), open(copy, "wb", opener=no_link) as file:
            file.write(safetensors.numpy.save(arrays))
    store.import_client(run, client, number, copy)
    if not store.current_run():
        # Or the first hello from here would deny what was just imported, and the coordinator count a lost state.
        store.enter_run(run)
    return next(s for s in list_clients(store) if (s.run, s.client) == (run, client))


def _facts(source: Path) -> Mapping[str, str]:
    try:
        check_header(source)
        with safetensors.safe_open(source, framework="numpy") as file:
            facts = file.metadata() or {}
    except Exception as error:
        # The library's error type is its own for a bad file, the system's for a missing one.
        raise TransferRefused(f"{source} cannot be read: {error}") from error
    if facts.get("format") != FORMAT or not facts.get("round", "").isdigit() or not facts.get("client"):
        raise TransferRefused(f"{source} is no client export of this program")
    if not _NAME.fullmatch(facts["client"]) or not _NAME.fullmatch(facts.get("run", "")):
        raise TransferRefused(f"{source} names a client or a run that cannot be")
    return dict(facts)
