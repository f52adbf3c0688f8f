"""What every program of ours ends with: the same number means the same everywhere."""

from __future__ import annotations

EXIT_OK, EXIT_DEFECT, EXIT_USAGE, EXIT_REFUSED, EXIT_STORAGE, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130


def exit_codes(*, usage: str, refused: str, storage: str) -> dict[int, str]:
    """A program's table of exit codes: code -> what it means.

    Args:
        usage: what the operator typed or configured wrongly.
        refused: who or what says no.
        storage: which files fail.
    """
    return {
        EXIT_OK: "done",
        EXIT_DEFECT: "a defect",
        EXIT_USAGE: usage,
        EXIT_REFUSED: refused,
        EXIT_STORAGE: storage,
        EXIT_INTERRUPTED: "interrupted",
    }
