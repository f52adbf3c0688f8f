"""Who reads the status page: what each reader may see and do.

=========  =========================================================  ======================================
reader     who                                                        may
=========  =========================================================  ======================================
stranger   everybody who reaches the port                             see numbers, as in /metrics; no names
local      without a token file: whoever comes from this machine as   see names of workers and clients
           the coordinator's own user, to a name of this machine,
           and not through a proxy
operator   whoever shows the token                                    see names, pause, resume, take models
=========  =========================================================  ======================================

The token travels in the Authorization header and nowhere else. A browser never sends that by itself, so that no other
site can make it act for its user. Where there is a token file nobody is `local` any more: behind a proxy on the same
machine everybody would be; one that says nothing of itself is told by its user. A request by another host name than this machine's own is no local one either: a site that
has its name point here (DNS rebinding) would read along.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import stat
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from aiohttp import web

from coordinator.errors import TokenUnusable
from coordinator.web.peer_user import End, end_of, owner
from ssd.daemon.logs import event as log_event

log = logging.getLogger(__name__)

SHORTEST_TOKEN = 32
LONGEST_FILE = 4096
REFUSED_LOG_SECONDS = 60.0
_TOKEN = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]{1,5})?")
_PROXIES = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


class Reader(IntEnum):
    """In ascending order of trust."""

    STRANGER = 0
    LOCAL = 1
    OPERATOR = 2

    @property
    def sees_names(self) -> bool:
        """Of workers and clients."""
        return self >= Reader.LOCAL


class Access:
    """Tells readers apart.

    Args:
        token_file: what holds the operator's token; None: nobody is an operator here.
        now: monotonic seconds.
        owner: tells whose a connection of this machine is.

    Raises:
        TokenUnusable: the file cannot be used.
    """

    def __init__(
        self,
        token_file: Path | None,
        now: Callable[[], float],
        owner: Callable[[End, End], int | None] = owner,
    ) -> None:
        self._file = token_file
        self._owner = owner
        self._now = now
        self._refusal_logged = -REFUSED_LOG_SECONDS
        self._digest = None if token_file is None else read_token(token_file)

    @property
    def has_token(self) -> bool:
        """Whether anybody can be an operator."""
        return self._digest is not None

    def reload(self) -> None:
        """Take up a new token. A file that cannot be used leaves the old one in use, and the log says why."""
        if self._file is None:
            return
        try:
            self._digest = read_token(self._file)
        except TokenUnusable as error:
            log_event(log, logging.ERROR, error.code, detail=f"{error}; the old token stays in use")
        else:
            log_event(log, logging.INFO, "token_reloaded", file=self._file)

    def reader(self, request: web.Request) -> Reader:
        """Who asks.

        Raises:
            HTTPUnauthorized: whoever shows a credential that is not the token.
        """
        shown = request.headers.getall("Authorization", [])
        if shown:
            if len(shown) == 1 and self._is_token(shown[0]):
                return Reader.OPERATOR
            self._say_refused()
            raise web.HTTPUnauthorized(
                text="that is not the operator's token", headers={"WWW-Authenticate": "Bearer"}
            )
        if self.has_token or any(name in request.headers for name in _PROXIES):
            return Reader.STRANGER
        local = is_this_machine(request) and _is_own_name(request) and self._is_own_user(request)
        return Reader.LOCAL if local else Reader.STRANGER

    def _is_own_user(self, request: web.Request) -> bool:
        """Whether the other end of the connection is a process of the coordinator's own user."""
        transport = request.transport
        peer = None if transport is None else transport.get_extra_info("peername")
        own = None if transport is None else transport.get_extra_info("sockname")
        if not isinstance(peer, tuple) or not isinstance(own, tuple):
            return True  # a Unix socket lets in whom its folder does
        return self._owner(end_of(*peer[:2]), end_of(*own[:2])) == os.getuid()

    def _is_token(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        # Digests are compared, so that neither content nor length shows in the time it takes.
        presented = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        expected = self._digest if self._digest is not None else b"\0" * 32
        same = hmac.compare_digest(presented, expected)
        return same and scheme.casefold() == "bearer" and self._digest is not None

    def _say_refused(self) -> None:
        # Once a minute: whoever guesses must not fill the log.
        if self._now() - self._refusal_logged >= REFUSED_LOG_SECONDS:
            self._refusal_logged = self._now()
            log_event(
                log, logging.WARNING, "token_refused", detail="a wrong token was shown to the HTTP port"
            )


def read_token(file: Path) -> bytes:
    """The SHA-256 of the token in a file: one line of at least 32 visible ASCII characters.

    Raises:
        TokenUnusable: and what to do about it.
    """
    make = f"make one with: (umask 077; head -c 32 /dev/urandom | base64 > {file})"
    try:
        if file.stat().st_mode & stat.S_IRWXO:
            raise TokenUnusable(f"coordinator.http_token_file {file} is open to every user: chmod o= {file}")
        with file.open("rb") as opened:
            content = opened.read(LONGEST_FILE + 1)
    except OSError as error:
        raise TokenUnusable(
            f"coordinator.http_token_file {file} cannot be read ({error.strerror}): {make}"
        ) from error
    text = content.decode("ascii", "replace").strip()
    if len(content) > LONGEST_FILE or len(text) < SHORTEST_TOKEN or not _TOKEN.fullmatch(text):
        raise TokenUnusable(
            f"coordinator.http_token_file {file} is not one line of {SHORTEST_TOKEN} or more visible characters: {make}"
        )
    return hashlib.sha256(text.encode()).digest()


def is_this_machine(request: web.Request) -> bool:
    """Whether the connection comes from this machine."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return True  # a Unix socket has no peer address
    return _is_loopback(str(peer[0]).partition("%")[0])


def _is_own_name(request: web.Request) -> bool:
    """Whether the request was meant for this machine by a name that nobody else can point here."""
    if request.transport is not None and not isinstance(request.transport.get_extra_info("peername"), tuple):
        return True
    host = _HOST.fullmatch(request.headers.get("Host", ""))
    if host is None:
        return False
    return (host["name"] or "").casefold() == "localhost" or _is_loopback(host["name"] or host["six"])


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
