"""Writes the transcripts of the canonical rounds: `PYTHONPATH=.:proto:tests/support python tests/golden/regenerate_rounds.py`.

Run it only when a round is meant to go another way, and read the difference: it is what changed.
"""

from __future__ import annotations

from pathlib import Path

from simulation.transcript import ROUNDS, transcript

FOLDER = Path(__file__).parent / "rounds"

if __name__ == "__main__":
    for name, setting in ROUNDS.items():
        (FOLDER / f"{name}.txt").write_text(transcript(setting))
