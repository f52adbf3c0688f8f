"""What the network saw of uploads: bodies, and the fate of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulation.net.network import Act, Passed
from ssd_proto.v1 import federation_pb2 as pb

_LOST = {Act.CUT.value, Act.SILENCE.value}


@dataclass
class Seen:
    """One SubmitUpdate call."""

    call: int
    life: int
    peer: str
    envelope: Any
    body: bytearray
    verdicts: list[Any] = field(default_factory=list)
    status: str = ""

    @property
    def clients(self) -> frozenset[str]:
        """Whose update it is."""
        return frozenset(each.client for each in self.envelope.clients)

    @property
    def whole(self) -> bool:
        """Whether all of the body arrived."""
        return len(self.body) == self.envelope.body_size

    @property
    def accepted(self) -> bool:
        """Whether the coordinator said so."""
        return any(each.fate == pb.Verdict.FATE_ACCEPTED for each in self.verdicts)


class Uploads:
    """Every upload call of a simulation, in the order in which they began."""

    def __init__(self, life: Callable[[], int]) -> None:
        self.calls: dict[int, Seen] = {}
        self._life = life
        self._bodies: dict[tuple[int, str, bytes], bytearray] = {}

    def saw(self, passed: Passed) -> None:
        """A message was sent; of the coordinator's it does not matter whether it arrives."""
        if passed.method != "SubmitUpdate" or (passed.up and passed.fate in _LOST):
            return
        seen = self.calls.get(passed.call)
        if passed.kind == "envelope" and seen is None:
            envelope = passed.message.envelope
            key = (self._life(), passed.peer, envelope.SerializeToString(deterministic=True))
            body = self._bodies.setdefault(key, bytearray())
            self.calls[passed.call] = Seen(passed.call, self._life(), passed.peer, envelope, body)
        elif seen is None:
            return
        elif passed.kind == "chunk":
            chunk = passed.message.chunk
            seen.body[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
        elif passed.kind == "verdict":
            seen.verdicts.append(passed.message.verdict)
        elif passed.kind == "status":
            seen.status = passed.message
