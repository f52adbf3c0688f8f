"""Text for a terminal: names and reasons of strangers made harmless, cut to a width in cells, and small curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from ssd.daemon.printable import printable

_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


@dataclass(frozen=True, slots=True)
class Letters:
    """What the terminal can show."""

    ascii_only: bool = False

    def plain(self, text: str) -> str:
        """One line without anything that would move the cursor, change colours or turn the direction of writing.

        Whatever is not printable (control and formatting characters, unassigned ones, every space but the usual one)
        stands as a replacement character.
        """
        if not self.ascii_only:
            return printable(text)
        return "".join(each if each.isascii() else "?" for each in printable(text, "?"))

    def cut(self, text: str, width: int) -> str:
        """`plain`, in at most `width` cells (at least 1); the last one says that something is missing."""
        clean = self.plain(text[: 4 * width + 4])
        if cell_len(clean) <= width:
            return clean
        return set_cell_size(clean, width - 1).rstrip() + ("~" if self.ascii_only else "…")

    def sparkline(self, values: Sequence[float | None], width: int) -> str:
        """The last `width` values between their lowest and highest; a gap for what is unknown or not finite."""
        shown = [value if value is not None and math.isfinite(value) else None for value in values[-width:]]
        known = [value for value in shown if value is not None]
        if not known:
            return ""
        low, high = min(known), max(known)
        blocks = _ASCII_BLOCKS if self.ascii_only else _BLOCKS
        # Halved first: the difference of two finite numbers may not be one.
        span = high / 2 - low / 2
        return "".join(
            " "
            if value is None
            else blocks[_step((value / 2 - low / 2) / span if span else 0.5, len(blocks))]
            for value in shown
        )

    def bar(self, parts: Sequence[tuple[int, str]], total: int, width: int) -> list[tuple[str, str]]:
        """A bar of `width` cells: (text, style) of each part in order, then of what is left.

        Args:
            parts: (count, style); a part that is not empty gets a cell as long as there is room.
            total: the count that fills the bar, at least 1.
            width: cells.
        """
        full, rest = ("#", ".") if self.ascii_only else ("█", "░")
        pieces, left = [], width
        for count, style in parts:
            cells = min(left, max(1, count * width // max(total, 1))) if count else 0
            pieces.append((full * cells, style))
            left -= cells
        return [*pieces, (rest * left, "dim")]


def _step(share: float, steps: int) -> int:
    return min(steps - 1, int(share * steps))


def seconds(value: float | None) -> str:
    """An age or a duration, short."""
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h" if value < 172_800 else f"{value / 86_400:.0f} d"
