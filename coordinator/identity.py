"""Who is calling, when transport security cannot say: the name in the hello, taken at its word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class ClaimedIdentity:
    """The `Identity` port under `--insecure`: only loopback peers can reach the port, so the claim stands."""

    def worker_name(self, claimed: str, auth_context: Mapping[str, Sequence[bytes]], peer: str) -> str:
        """The claimed name."""
        return claimed
