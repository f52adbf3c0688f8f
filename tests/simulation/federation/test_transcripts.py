"""The canonical rounds go as their transcripts in tests/golden/rounds say: every event, effect and message in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simulation.transcript import ROUNDS, transcript

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "rounds"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11),
    reason="what happens at one instant is put in order by asyncio: the transcripts are those of Python 3.11",
)
@pytest.mark.parametrize("name", ROUNDS)
def test_a_canonical_round_goes_as_it_always_went(name: str) -> None:
    assert transcript(ROUNDS[name]) == (FOLDER / f"{name}.txt").read_text(), (
        "if it is meant, run tests/golden/regenerate_rounds.py"
    )


def test_every_transcript_belongs_to_a_round() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(ROUNDS)
