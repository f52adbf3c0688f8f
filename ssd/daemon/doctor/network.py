"""Reaching a peer, and whether one's own ports are free."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd.daemon.doctor.findings import Finding, fault, ok, warning
from ssd.trust.diagnosis import Diagnosis, Peer

SLOW_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ReachFacts:
    """What came of a connection."""

    peer: str
    addresses: tuple[str, ...] = ()
    """What its name means."""
    unresolved: str = ""
    """Why its name means nothing; empty: it does."""
    failed: str = ""
    """Why nobody can be connected to; empty: somebody can."""
    seconds: float = 0.0
    """What connecting took."""


def reach(peer: Peer, patience: float) -> ReachFacts:
    """Resolves and connects, and hangs up.

    Args:
        peer: whom.
        patience: seconds for each of the two.
    """
    shown = f"unix:{peer.path}" if peer.path else f"{peer.host}:{peer.port}"
    started = time.monotonic()
    try:
        if peer.path:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(patience)
                connection.connect(peer.path)
            return ReachFacts(peer=shown, seconds=time.monotonic() - started)
        found = _resolve(peer.host, peer.port, patience)
    except OSError as error:
        reason = error.strerror or str(error)
        if peer.path:
            return ReachFacts(peer=shown, failed=reason)
        return ReachFacts(peer=shown, unresolved=reason)
    addresses = tuple(dict.fromkeys(found))
    started = time.monotonic()
    try:
        socket.create_connection((peer.host, peer.port), patience).close()
    except OSError as error:
        return ReachFacts(peer=shown, addresses=addresses, failed=error.strerror or str(error))
    return ReachFacts(peer=shown, addresses=addresses, seconds=time.monotonic() - started)


def _resolve(host: str, port: int, patience: float) -> list[str]:
    """The system's resolver has no time limit of its own, so it is waited for and then left behind."""
    found: list[str] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            found.extend(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(errno.ETIMEDOUT, f"the resolver did not answer in {patience:g} s")
    return found


def judge_reach(facts: ReachFacts) -> Iterator[Finding]:
    """Finding `network`."""
    if facts.unresolved:
        yield fault(
            "network", f"{facts.peer}: the name cannot be resolved: {facts.unresolved}",
            "correct [worker] coordinator, or this host's DNS or /etc/hosts",
        )  # fmt: skip
        return
    where = f" ({', '.join(facts.addresses)})" if facts.addresses else ""
    if facts.failed:
        yield fault(
            "network", f"{facts.peer}{where}: nobody can be connected to: {facts.failed}",
            "is the coordinator running, does it listen on an address that this host reaches ([coordinator] listen), and"
            " does every firewall let the port through?",
        )  # fmt: skip
        return
    said = f"{facts.peer}{where}: connected in {facts.seconds * 1000:.0f} ms"
    if facts.seconds > SLOW_SECONDS:
        yield warning("network", said, "that is slow: is something between the hosts overloaded?")
    else:
        yield ok("network", said)


def judge_handshake(found: Diagnosis | None, answered: str, failed: str) -> Iterator[Finding]:
    """Finding `peer`: what the other side's certificate and ours came to.

    Args:
        found: what a handshake met; None: nothing wrong.
        answered: what the peer said to a health check; empty if it said nothing.
        failed: why it said nothing.
    """
    if found is not None:
        yield fault("peer", found.sentence, "put that right, then look again")
    elif not answered:
        yield fault("peer", f"the coordinator does not answer: {failed}", "look at the coordinator's log")
    elif answered == "SERVING":
        yield ok("peer", "the coordinator takes this worker's certificate and is serving")
    else:
        yield warning(
            "peer", f"the coordinator answers that it is {answered}", "look at its /readyz or its log"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PortFacts:
    """Whether something of one's own could listen."""

    setting: str
    address: str
    error: int = 0
    """errno of the attempt; 0: it could."""


def try_port(setting: str, shown: str, host: str, port: int, path: str) -> PortFacts:
    """Binds for an instant, without listening; a Unix socket's place is only looked at."""
    if path:
        folder = Path(path).parent
        if not folder.is_dir():
            return PortFacts(setting=setting, address=shown, error=errno.ENOENT)
        error = 0 if os.access(folder, os.W_OK) else errno.EACCES
        return PortFacts(setting=setting, address=shown, error=error)
    try:
        kind, number, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except OSError:
        return PortFacts(setting=setting, address=shown, error=errno.EADDRNOTAVAIL)
    with socket.socket(kind, number, protocol) as probe:
        # Connections of an earlier process that are still closing do not keep a daemon from listening either.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return PortFacts(setting=setting, address=shown, error=error.errno or errno.EADDRNOTAVAIL)
    return PortFacts(setting=setting, address=shown)


_PORT_ADVICE = {
    errno.EADDRINUSE: "stop what listens there (ss -ltnp), or choose another port",
    errno.EACCES: "ports below 1024 and other users' folders are not for this user: choose another",
    errno.EADDRNOTAVAIL: "this host has no such address: use one of its own, or 0.0.0.0 for all",
    errno.ENOENT: "make the folder of the socket",
}


def judge_port(facts: PortFacts, running: int | None) -> Finding:
    """Finding `ports`.

    Args:
        facts: of one address.
        running: process id of a daemon that runs with this state directory; None: none does.
    """
    if facts.error == errno.EADDRINUSE and running is not None:
        return ok(
            "ports",
            f"{facts.setting} {facts.address}: taken, and the coordinator is running (process {running})",
        )
    if facts.error:
        advice = _PORT_ADVICE.get(facts.error, "choose another address")
        return fault("ports", f"{facts.setting} {facts.address}: {os.strerror(facts.error).lower()}", advice)
    return ok("ports", f"{facts.setting} {facts.address}: free")
