"""What a contender of the demo leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd.demo.settings import Contender
from ssd.federation.records import Remains


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome(Remains):
    """What one contender's federation came to."""

    contender: Contender
    encoder: Path
    """Never missing: the demo's plans ask for it."""
