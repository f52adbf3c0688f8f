"""The bar on a terminal, and the silence elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from ssd.plots.progress import progress_bar


def test_a_terminal_sees_what_goes_on() -> None:
    screen = io.StringIO()
    with progress_bar(Console(file=screen, force_terminal=True, width=100)) as track:
        track("features", 3, 7)
        track("uniformity", 0, 1)
    assert "features" in screen.getvalue()
    assert "uniformity" in screen.getvalue()


def test_a_file_or_pipe_gets_nothing() -> None:
    screen = io.StringIO()
    with progress_bar(Console(file=screen)) as track:
        track("features", 3, 7)
    assert screen.getvalue() == ""
