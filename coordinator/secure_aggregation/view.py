"""Where secure aggregation stands, as people see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureView:
    """Where secure aggregation stands, for status displays."""

    level: str
    phase: str
    """Of the present attempt; empty between attempts and until its participants are known."""
    participants: int
    uploaded: int
    survivors: int
    """Participants of the journaled set; 0 before there is one."""
    awaited: tuple[str, ...]
    """Workers whose next message is awaited."""
