"""The name of a caller as a port: how a connection says who is at its other end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ssd.trust.names import Subject


class Identity(Protocol):
    """Who is calling. Never read from a message: the one exception, the hello's name, is what `None` stands for."""

    def subject(self, auth_context: Mapping[str, Sequence[bytes]]) -> Subject | None:
        """Who is calling, by what gRPC says of the connection.

        Behaviour: None if the transport cannot say (`--insecure`: everybody who reaches the port may do everything,
        and a worker is called what its hello says). A connection that may not be used, or whose certificate names
        nobody of this federation, raises `coordinator.errors.NotPermitted`.
        """
        ...
