"""How often strangers may ask: a steady rate after a burst, for each host and for all of them together. Pure.

What is remembered of hosts is bounded; who is forgotten had been quiet for longest.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

REMEMBERED_HOSTS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """`burst` at once, then `per_second`."""

    burst: int
    per_second: float


class AdmissionLimit:
    """Decides who may go on. A call that may not takes nothing from anybody's allowance.

    Args:
        host: what one host may.
        overall: what all together may.
    """

    def __init__(self, host: Allowance, overall: Allowance) -> None:
        self._host = host
        self._overall = _Bucket(overall)
        self._hosts: OrderedDict[str, _Bucket] = OrderedDict()

    def admit(self, host: str, now: float) -> bool:
        """Whether a call from this host may go on.

        Args:
            host: whatever tells one caller from another.
            now: monotonic seconds.
        """
        bucket = self._hosts.pop(host, None) or _Bucket(self._host)
        self._hosts[host] = bucket
        if len(self._hosts) > REMEMBERED_HOSTS:
            self._hosts.popitem(last=False)
        return bucket.has_one(now) and self._overall.has_one(now) and bucket.take() and self._overall.take()


class _Bucket:
    """Fills at a rate up to its burst; empty at no earlier than its first use."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._level = float(allowance.burst)
        self._at: float | None = None

    def has_one(self, now: float) -> bool:
        """Whether `take` may be called."""
        if self._at is not None:
            gained = max(0.0, now - self._at) * self._allowance.per_second
            self._level = min(float(self._allowance.burst), self._level + gained)
        self._at = now
        return self._level >= 1

    def take(self) -> bool:
        """Take one out."""
        self._level -= 1
        return True


def network_of(address: str) -> str:
    """The host an IP address belongs to. Of IPv6, whose hosts have as many addresses as they like, it is the network
    of 64 bits.

    Raises:
        ValueError: that is no IP address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


@dataclass(slots=True)
class PaceLimit:
    """A bucket of `rate * burst_seconds` units that fills at `rate` units a second."""

    rate: float
    burst_seconds: float
    _full_at: float = float("-inf")
    """When the bucket is full again."""

    def seconds_to_wait(self, units: float, now: float) -> float:
        """Take `units` out; how long to wait before the next ones. May be owed: a single one is always let through.

        Args:
            units: what came, at least 0.
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now) + units / self.rate
        return max(0.0, self._full_at - now - self.burst_seconds)
