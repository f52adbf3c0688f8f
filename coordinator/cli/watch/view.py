"""What `ssd-coordinator watch` draws: a scene in, a rich renderable out. No terminal, no clock, no network.

Whatever workers or clients have named themselves and every reason that somebody gave passes through
`Letters.cut`: nothing in a frame is markup, a control sequence, or wider than its place. The frame fits its height:
its lists share the lines that the fixed part leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from coordinator.cli.tables import number
from coordinator.cli.watch.text import Letters, seconds
from coordinator.inspection.curves import drawn
from coordinator.ports.figures import Kind, kind_of

Json = Any
ROUNDS = 60
"""Attempts a scene should know: what a small curve can show."""
_PHASES = {"halted": "red", "paused": "yellow", "waiting": "yellow", "drained": "yellow", "finished": "bold"}
_OUTCOMES = {"committed": "green", "abandoned": "yellow"}
_PARTS = (("uploaded", "green"), ("trained", "cyan"), ("training", "blue"))
_ENOUGH = (8, 10, 20, 10)
"""Rows of measures, rounds, workers and drop-outs where the height is nobody's concern."""
_GAP = 2
"""Cells between columns."""
_MOST_ROWS = 200
"""No terminal has more lines."""
_OVERHEAD = 2
"""Lines of a list beside its rows: an empty one and its head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What is known at one moment."""

    address: str
    status: Mapping[str, Json] | None = None
    """The last answer of `OperatorClient.status(details=True)`; None: there was none yet."""
    rounds: Sequence[Mapping[str, Json]] = ()
    """Attempts, newest first, as `OperatorClient.rounds` gives them."""
    trouble: str = ""
    """Why the last question was not answered; empty: it was."""
    silent_seconds: float | None = None
    """Since the last answer, while there is trouble; None: there was none."""


def frame(
    scene: Snapshot, width: int, height: int | None = None, *, ascii_only: bool = False
) -> RenderableType:
    """One picture.

    Args:
        scene: what to draw.
        width: cells of a line.
        height: lines there are; None: as many as it takes, within reason.
        ascii_only: the terminal shows nothing else.
    """
    drawing = _Drawing(scene, max(20, width), Letters(ascii_only))
    fixed = drawing.head()
    lists = (drawing.measures(), drawing.rounds(), drawing.workers(), drawing.dropped())
    needs = [min(len(rows.rows), most) for rows, most in zip(lists, _ENOUGH, strict=True)]
    given = needs if height is None else shares(needs, height - len(fixed))
    shown: list[RenderableType] = list(fixed if height is None else fixed[:height])
    for rows, count in zip(lists, given, strict=True):
        if count:
            shown += [Text(""), rows.draw(count, width, ascii_only=ascii_only)]
    return Group(*shown)


def shares(needs: Sequence[int], room: int) -> list[int]:
    """How many rows each list gets: in turn, one at a time, until the room (lines) is used up."""
    given = [0] * len(needs)
    moved = True
    while moved:
        moved = False
        for index, need in enumerate(needs):
            cost = 1 if given[index] else 1 + _OVERHEAD
            if given[index] < need and cost <= room:
                given[index] += 1
                room -= cost
                moved = True
    return given


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """A table of which the first rows are drawn."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Text]]
    total: int
    """Rows there would be if all were told."""

    def draw(self, count: int, width: int, *, ascii_only: bool) -> RenderableType:
        """The head and the first `count` rows; what is too wide for a line is cut at its end."""
        more = f" ({count} of {self.total})" if count < self.total else ""
        heads = [Text(f"{self.title}{more}", style="bold"), *(Text(head, style="dim") for head in self.heads)]
        shown = [heads, *self.rows[:count]]
        widths = [max(row[column].cell_len for row in shown) for column in range(len(heads))]
        lines = []
        for row in shown:
            line = Text(no_wrap=True, overflow="crop")
            for cell, cells in zip(row, widths, strict=True):
                line.append_text(cell).append(" " * (cells - cell.cell_len + _GAP))
            line.rstrip()
            line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
            lines.append(line)
        return Group(*lines)


class _Drawing:
    def __init__(self, scene: Snapshot, width: int, letters: Letters) -> None:
        self._scene = scene
        self._status: Mapping[str, Json] = scene.status or {}
        self._details: Mapping[str, Json] = self._status.get("details") or {}
        self._width = width
        self._letters = letters
        self._name = max(8, min(32, width // 4))
        """Cells a name gets."""

    # ------------------------------------------------------------------------------------------- fixed part

    def head(self) -> list[Text]:
        """Lines that are always there, each one line high."""
        status, lines = (
            self._status,
            [self._line("", f"ssd-coordinator watch  {self._scene.address}", "bold")],
        )
        if self._scene.trouble:
            lines += self._trouble()
        if not status:
            return lines
        lines.append(self._line("run", f"{status['run_id']}  method {status['method']}, {status['mode']}"))
        waiting = f": {status['waiting_for']}" if status["waiting_for"] else ""
        lines.append(self._line("phase", status["phase"] + waiting, _PHASES.get(status["phase"], "green")))
        lines.append(
            self._line(
                "version",
                f"{status['version']} of {status['rounds']}  {status['model_digest'][:16]}",
            )
        )
        lines.append(
            self._line(
                "clients",
                f"{status['connected_clients']} of {status['registered_clients']} connected, "
                f"on {len(status['workers'])} workers",
            )
        )
        if status["round"]:
            lines += self._round()
        secure = self._details.get("secure_aggregation")
        if secure and secure["level"] != "off":
            lines.append(self._line("secure", _secure(secure)))
        if status.get("privacy"):
            lines.append(self._line("privacy", status["privacy"]))
        return lines

    def _trouble(self) -> list[Text]:
        scene = self._scene
        heard = (
            "not heard of yet"
            if scene.silent_seconds is None
            else f"silent for {seconds(scene.silent_seconds)}"
        )
        said = "; what follows is old" if self._status else ""
        return [
            self._line("waiting", f"the coordinator is {heard}{said}", "bold yellow"),
            self._line("", scene.trouble, "yellow"),
        ]

    def _round(self) -> list[Text]:
        status, details = self._status, self._details
        told = f"{status['round']}, attempt {status['attempt']}"
        if details:
            told += f", open for {seconds(details['open_seconds'])}"
            left = details["left_seconds"]
            if left is not None:
                told += f", {seconds(left)} left" if left >= 0 else f", {seconds(-left)} over its deadline"
        lines = [self._line("round", told)]
        cohort = status["cohort"]
        progress = details.get("progress") or {
            "uploaded": cohort.get("accepted", 0),
            "failed": cohort.get("failed", 0),
        }
        invited = cohort.get("invited", 0)
        bar = self._letters.bar(
            [(progress.get(name, 0), style) for name, style in _PARTS], invited, max(10, self._width // 4)
        )
        counts = [f"{progress.get('uploaded', 0)} of {invited} uploaded"]
        if details.get("goal") and details["goal"] != invited:
            counts[0] += f", {details['goal']} close it"
        counts += [
            f"{progress[name]} {name}"
            for name in ("trained", "training", "invited", "away", "failed")
            if progress.get(name)
        ]
        line = Text(" " * 10, no_wrap=True, overflow="crop")
        for text, style in bar:
            line.append(text, style)
        line.append("  " + self._letters.cut("; ".join(counts), max(1, self._width - line.cell_len - 2)))
        return [*lines, line]

    def _line(self, label: str, text: str, style: str = "") -> Text:
        start = f"{label:<10}" if label else ""
        line = Text(start, style="dim", no_wrap=True, overflow="crop")
        return line.append(self._letters.cut(text, max(1, self._width - len(start))), f"not dim {style}")

    # ------------------------------------------------------------------------------------------------ lists

    def measures(self) -> _List:
        """Losses and representation measures over the rounds that are known."""
        committed = [each for each in reversed(self._scene.rounds) if each["outcome"] == "committed"]
        names = {name: None for each in committed for name in each["statistics"]}
        wanted = sorted(
            filter(drawn, names), key=lambda name: (kind_of(name) is Kind.QUALITY, name != "loss", name)
        )
        cells = max(8, min(ROUNDS, self._width - self._name - 40))
        rows = []
        for name in wanted:
            # A round that measured nothing of the kind is no gap in a curve.
            values = [each["statistics"][name] for each in committed if name in each["statistics"]]
            known = [value for value in values if value is not None]
            rows.append(
                (
                    self._cell(kind_of(name).short(name)),
                    Text(number(values[-1])),
                    Text(self._letters.sparkline(values, cells), style="cyan"),
                    Text(f"{number(min(known))} to {number(max(known))}" if known else "-", style="dim"),
                )
            )
        heads = ("last", "by round", "range")
        return _List(title="measures", heads=heads, rows=rows, total=len(rows))

    def rounds(self) -> _List:
        """Attempts, newest first."""
        rows = [
            (
                Text(f"{each['round']}.{each['attempt']}"),
                Text(self._letters.plain(each["outcome"]), style=_OUTCOMES.get(each["outcome"], "")),
                Text(f"{each['accepted']}/{each['cohort_size']}"),
                Text(seconds(each["seconds"]) if each["outcome"] != "open" else "-"),
                Text(number(each["statistics"].get("loss"))),
                self._cell(each["reason"] or each["model_digest"][:16], self._width // 2),
            )
            for each in self._scene.rounds
        ]
        heads = ("outcome", "clients", "time", "loss", "digest or reason")
        return _List(title="round", heads=heads, rows=rows, total=len(rows))

    def workers(self) -> _List:
        """Those that left first, then those whose upload was refused, then the others; by name."""
        refused = {
            each["worker"]: each["reason"] for each in self._details.get("dropped", ()) if each["worker"]
        }
        departed = self._details.get("departed", ())
        rows = [
            (
                self._cell(each["worker"]),
                Text("gone", style="yellow"),
                Text("-"),
                Text(seconds(each["last_seen_seconds"])),
                self._cell(each["reason"], self._width // 3, "yellow"),
            )
            for each in departed
        ]
        attached = self._status.get("workers", ())
        first = sorted(attached, key=lambda each: (each["worker"] not in refused, each["worker"]))
        rows += [
            (
                self._cell(each["worker"]),
                self._cell(("evaluates " if each["evaluates"] else "") + (each["device"] or "-"), 24),
                Text(str(each["clients"])),
                Text(seconds(each["last_seen_seconds"])),
                self._cell(refused.get(each["worker"], ""), self._width // 3, "yellow"),
            )
            for each in first[:_MOST_ROWS]
        ]
        total = len(attached) + max(len(departed), self._details.get("departed_workers", 0))
        heads = ("device", "clients", "heard", "left because, or last upload refused")
        return _List(title="worker", heads=heads, rows=rows, total=total)

    def dropped(self) -> _List:
        """Clients that failed, newest first."""
        failed = [each for each in self._details.get("dropped", ()) if each["client"]]
        rows = [
            (
                self._cell(each["client"]),
                Text(f"{each['round']}.{each['attempt']}"),
                Text(seconds(each["seconds_ago"])),
                self._cell(each["reason"], self._width // 2, "yellow"),
            )
            for each in failed
        ]
        heads = ("round", "ago", "why it failed")
        return _List(title="client", heads=heads, rows=rows, total=len(rows))

    def _cell(self, text: str, width: int | None = None, style: str = "") -> Text:
        return Text(self._letters.cut(text, max(1, width or self._name)), style=style)


def _secure(told: Mapping[str, Json]) -> str:
    if not told["phase"]:
        return str(told["level"])
    text = (
        f"{told['level']}, {told['phase'].replace('_', ' ')}: {told['participants']} participants, "
        f"{told['uploaded']} uploaded"
    )
    if told["survivors"]:
        text += f", {told['survivors']} in the sum"
    if told["awaited_workers"]:
        names = ", ".join(told["awaited"][:8])
        text += f"; awaits {names}" + (", ..." if told["awaited_workers"] > 8 else "")
    return text
