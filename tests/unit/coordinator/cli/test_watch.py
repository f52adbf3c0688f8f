"""`ssd-coordinator watch`: what is drawn of which answers, what of strangers' text is let through, who is waited for."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from coordinator.cli.watch.poller import Watcher
from coordinator.cli.watch.text import Letters, seconds
from coordinator.cli.watch.view import Snapshot, frame, shares
from coordinator.errors import OperatorFault
from coordinator.parts import Coordinator
from coordinator.rpc.operator.details import MOST, details_message
from coordinator.runtime.clock import SystemClock
from rounds.driver_harness import driver, simulate
from ssd_proto.v1 import operator_pb2 as pb
from ssd_wire.messages import Hello

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "watch.txt"
HOSTILE = "\x1b[2J\x1b]0;title\x07\r\nw\u202e\u200b[red]x[/red]\ud800\x00"


def rounds(count: int) -> list[dict[str, Any]]:
    found = [
        {
            "round": number,
            "attempt": 1,
            "outcome": "committed",
            "reason": "",
            "cohort_size": 4,
            "accepted": 4,
            "seconds": 1.5 * number,
            "bytes_up": 0,
            "bytes_down": 0,
            "model_digest": f"{number:02x}" * 32,
            "statistics": {"loss": 3.0 / number, "clients": 4.0, "weight": 100.0}
            | (
                {"quality_z_uniformity_inter": -1.0 - number / 8, "quality_version": 1.0}
                if number % 2
                else {}
            ),
            "accepted_clients": [],
        }
        for number in range(1, count + 1)
    ]
    found.append(
        {
            **found[-1],
            "round": count + 1,
            "outcome": "open",
            "accepted": 0,
            "statistics": {},
            "model_digest": "",
        }
    )
    found.append({**found[-1], "attempt": 2, "outcome": "abandoned", "reason": "deadline"})
    return found[::-1]


STATUS: dict[str, Any] = {
    "run_id": "run-1",
    "method": "ssd",
    "mode": "elastic",
    "phase": "training",
    "waiting_for": "2 of 4 clients",
    "version": 12,
    "model_digest": "ab" * 32,
    "rounds": 100,
    "round": 13,
    "attempt": 2,
    "cohort": {"accepted": 1, "failed": 1, "invited": 6},
    "workers": [
        {"worker": f"site-{index}", "clients": index, "evaluates": index == 2, "device": "cpu", "last_seen_seconds": 0.25}
        for index in range(3)
    ],
    "registered_clients": 8,
    "connected_clients": 6,
    "evaluated_version": 0,
    "evaluation": {},
    "statistics": {},
    "build": "b",
    "uptime_seconds": 60.0,
    "privacy": "epsilon 2 at delta 1e-05 after 12 rounds",
    "details": {
        "progress": {"away": 0, "failed": 1, "invited": 1, "trained": 1, "training": 2, "uploaded": 1},
        "goal": 4,
        "open_seconds": 33.0,
        "left_seconds": 150.0,
        "departed": [{"worker": "site-9", "last_seen_seconds": 200.0, "reason": "went_away"}],
        "departed_workers": 1,
        "dropped": [
            {"client": "garden", "worker": "", "round": 13, "attempt": 2, "reason": "not_finite", "seconds_ago": 4.0},
            {"client": "", "worker": "site-1", "round": 12, "attempt": 1, "reason": "too_late", "seconds_ago": 90.0},
        ],
        "secure_aggregation": {
            "level": "active",
            "phase": "share_keys",
            "participants": 3,
            "uploaded": 1,
            "survivors": 0,
            "awaited": ["site-0", "site-2"],
            "awaited_workers": 2,
        },
    },
}  # fmt: skip
SCENE = Snapshot(address="fed.example.org:7443", status=STATUS, rounds=rounds(12))


def drawn(
    scene: Snapshot, width: int, height: int | None = None, *, ascii_only: bool = False, colour: bool = False
) -> str:
    into = io.StringIO()
    console = Console(
        file=into, width=width, height=height or 99, markup=False, emoji=False, highlight=False, force_terminal=colour,
        color_system="standard" if colour else None, _environ={},
    )  # fmt: skip
    console.print(frame(scene, width, height, ascii_only=ascii_only))
    return into.getvalue()


def golden() -> str:
    """What stands in golden/watch.txt."""
    trouble = "no coordinator answers at fed.example.org:7443"
    scenes = {
        "a round under way, 100 columns": drawn(SCENE, 100),
        "60 columns, 24 lines": drawn(SCENE, 60, 24),
        "nothing but ASCII": drawn(SCENE, 100, 16, ascii_only=True),
        "a coordinator that went away": drawn(
            Snapshot(address="a:1", status=STATUS, rounds=(), trouble=trouble, silent_seconds=12.0), 80, 14
        ),
        "a coordinator nobody has heard of": drawn(Snapshot(address="a:1", trouble=trouble), 80, 14),
        "a coordinator that tells no details": drawn(
            Snapshot(address="a:1", status={k: v for k, v in STATUS.items() if k != "details"}), 80
        ),
    }
    lines = []
    for name, text in scenes.items():
        lines += [f"--- {name}", *(line.rstrip() for line in text.splitlines()), ""]
    return "\n".join(lines)


class TestFrame:
    def test_pictures_are_the_ones_that_were_looked_at(self) -> None:
        assert golden() == GOLDEN.read_text(encoding="utf-8"), "if it is meant, write golden() there"

    @pytest.mark.parametrize("width", [1, 20, 33, 80, 250])
    @pytest.mark.parametrize("height", [1, 3, 10, 24, 200])
    def test_it_never_is_larger_than_the_terminal(self, width: int, height: int) -> None:
        lines = drawn(SCENE, width, height).splitlines()
        assert len(lines) <= height
        assert all(cell_len(line) <= width for line in lines)

    def test_a_thousand_workers_are_counted_and_a_screenful_is_shown(self) -> None:
        many = [{**STATUS["workers"][0], "worker": f"w-{index:04d}"} for index in range(1000)]
        text = drawn(Snapshot(address="a:1", status={**STATUS, "workers": many}), 100, 40)
        assert "of 1001)" in text
        assert len(text.splitlines()) <= 40

    @pytest.mark.parametrize("ascii_only", [False, True])
    def test_nothing_a_stranger_says_reaches_the_terminal_as_a_command(self, ascii_only: bool) -> None:
        def poisoned(value: Any) -> Any:
            match value:
                case str():
                    return HOSTILE + value * 50
                case dict():
                    return {key: poisoned(each) for key, each in value.items()}
                case list():
                    return [poisoned(each) for each in value]
                case _:
                    return value

        status = {**poisoned(STATUS), "round": 13}
        scene = Snapshot(
            address=HOSTILE, status=status, rounds=[poisoned(each) for each in rounds(3)], trouble=HOSTILE * 9
        )
        text = drawn(scene, 100, 60, ascii_only=ascii_only)
        assert all(c == "\n" or c.isprintable() for c in text)
        assert "[red]" in text  # as it is, not as markup
        assert not ascii_only or text.isascii()
        assert all(cell_len(line) <= 100 for line in text.splitlines())

    def test_colours_are_the_consoles_business(self) -> None:
        assert "\x1b[3" in drawn(SCENE, 100, colour=True)
        assert "\x1b" not in drawn(SCENE, 100)

    def test_values_that_are_none_or_not_finite_are_dashes_and_gaps(self) -> None:
        scene = Snapshot(
            address="a:1",
            status=STATUS,
            rounds=[{**each, "statistics": {"loss": None}} for each in rounds(3)],
        )
        (line,) = [line for line in drawn(scene, 100).splitlines() if line.startswith("loss")]
        assert line.split() == ["loss", "-", "-"]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(-5, 80))
def test_lists_share_the_lines_there_are(needs: list[int], room: int) -> None:
    given_rows = shares(needs, room)
    lines = sum(count + 2 for count in given_rows if count)
    assert lines <= max(0, room)
    assert all(count <= need for count, need in zip(given_rows, needs, strict=True))
    if any(count < need for count, need in zip(given_rows, needs, strict=True)):
        assert room - lines < 3, "there was room for another row"


class TestText:
    @given(st.text(), st.integers(1, 40), st.booleans())
    def test_cut_text_is_one_harmless_line_that_fits(self, text: str, width: int, ascii_only: bool) -> None:
        cut = Letters(ascii_only).cut(text, width)
        assert cell_len(cut) <= width
        assert cut.isprintable()
        assert not ascii_only or cut.isascii()

    def test_names_as_people_write_them_stay(self) -> None:
        assert Letters().cut("Größe 花園 नाम", 40) == "Größe 花園 नाम"
        assert Letters().cut("north-garden", 7) == "north-…"
        assert Letters(ascii_only=True).cut("north-garden", 7) == "north-~"
        assert Letters().cut("花園花園", 4) == "花…"

    @pytest.mark.parametrize(
        ("values", "shown"),
        [
            ([], ""), ([None, math.nan, math.inf], ""), ([1.0], "▅"), ([2.0, 2.0], "▅▅"),
            ([0.0, None, 1.0], "▁ █"), ([3.0, 2.0, 1.0, 0.0], "█▆▃▁"), ([-1.7e308, 1.7e308], "▁█"),
            ([9.0, 0.0, 1.0, 2.0, 3.0], "▁▃▆█"),
        ],
    )  # fmt: skip
    def test_a_curve_goes_from_its_lowest_to_its_highest(
        self, values: Sequence[float | None], shown: str
    ) -> None:
        assert Letters().sparkline(values, 4) == shown

    @given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 30), st.integers(0, 40))
    def test_a_bar_is_as_long_as_it_should_be(self, counts: list[int], total: int, width: int) -> None:
        pieces = Letters().bar([(count, "") for count in counts], total, width)
        assert sum(cell_len(text) for text, _ in pieces) == width

    def test_ages(self) -> None:
        assert [seconds(each) for each in (None, 0.25, 59, 600, 9000, 400_000)] == [
            "-", "0.2 s", "59 s", "10 min", "2.5 h", "5 d",
        ]  # fmt: skip


class Absent(OperatorFault):
    """Nobody answers."""


class Forbidden(OperatorFault):
    """Somebody says no."""


class Script:
    """Answers from a list; a fault in it is raised."""

    def __init__(self, *answers: Mapping[str, Any] | OperatorFault) -> None:
        self.answers = list(answers)
        self.opened = self.closed = 0
        self.asked_rounds: list[int] = []
        self.time = 100.0

    def watcher(self, *waits_for: type[OperatorFault]) -> Watcher:
        return Watcher("a:1", self._open, lambda: self.time, waits_for)

    def _open(self) -> Script:
        self.opened += 1
        return self

    def status(self, *, details: bool = False) -> Mapping[str, Any]:
        assert details
        answer = self.answers.pop(0)
        if isinstance(answer, OperatorFault):
            raise answer
        return answer

    def rounds(self, limit: int = 0, *, counts_only: bool = False) -> Sequence[Mapping[str, Any]]:
        assert counts_only
        self.asked_rounds.append(limit)
        return rounds(2)

    def close(self) -> None:
        self.closed += 1


class TestWatching:
    def test_a_coordinator_that_restarts_is_waited_for_over_a_new_connection(self) -> None:
        script = Script(STATUS, Absent("gone"), Absent("gone"), {**STATUS, "version": 13})
        watcher = script.watcher(Absent)
        first = watcher.look()
        script.time += 7
        waiting = watcher.look()
        assert (waiting.trouble, waiting.silent_seconds, waiting.status) == ("gone", 7.0, first.status)
        watcher.look()
        back = watcher.look()
        assert (back.trouble, back.status and back.status["version"]) == ("", 13)
        # A connection that failed tries again ever more rarely: each look after a failure has one of its own.
        assert (script.opened, script.closed) == (3, 2)

    def test_one_that_is_not_there_yet_is_waited_for_too(self) -> None:
        script = Script(Absent("nobody"), STATUS)
        watcher = script.watcher(Absent)
        scene = watcher.look()
        assert (scene.status, scene.silent_seconds, scene.trouble) == (None, None, "nobody")
        assert watcher.look().status == STATUS

    def test_a_refusal_ends_it_before_the_first_answer_and_is_shown_after_it(self) -> None:
        with pytest.raises(Forbidden):
            Script(Forbidden("no")).watcher(Absent).look()
        watcher = Script(STATUS, Forbidden("revoked")).watcher(Absent)
        watcher.look()
        assert watcher.look().trouble == "revoked"

    def test_who_waits_for_nobody_is_told_at_once(self) -> None:
        with pytest.raises(Absent):
            Script(Absent("gone")).watcher().look()

    def test_rounds_are_asked_for_when_something_has_moved(self) -> None:
        script = Script(
            STATUS, STATUS, {**STATUS, "attempt": 3}, {**STATUS, "attempt": 3, "waiting_for": "x"}
        )
        watcher = script.watcher()
        for _ in range(4):
            watcher.look()
        assert len(script.asked_rounds) == 2


def details(subject: Coordinator, clock: SystemClock, **changes: float) -> pb.StatusDetails:
    """What a status says beside the state, of a status that differs in these fields."""
    view = replace(subject.reports.status(clock.monotonic()), **changes)  # type: ignore[arg-type]  # numbers alone
    return details_message(subject.reports, view, clock)


class TestDetails:
    def test_they_tell_of_the_cohort_and_of_who_dropped_out(self, tmp_path: Path) -> None:
        async def scene(subject: Coordinator) -> None:
            clock = SystemClock()
            before = details(subject, clock)
            assert (before.goal, sum(before.progress.values()), before.HasField("left_seconds")) == (
                0,
                0,
                False,
            )
            assert before.secure_aggregation.level == "off"
            for worker, clients in (("w1", ["a", "b"]), ("w2", ["c"])):
                hello = Hello(
                    worker=worker, instance=f"{sum(worker.encode()):032x}", clients=dict.fromkeys(clients, 0)
                )
                await subject.attendance.attach(hello)
            during = details(subject, clock)
            assert (during.goal, during.progress["invited"]) == (3, 3)
            now = clock.monotonic()
            soon = details(subject, clock, opened_at=now - 5.0, deadline_at=now + 9.0)
            assert soon.open_seconds >= 5.0
            assert 8.0 < soon.left_seconds <= 9.0
            late = details(subject, clock, opened_at=now + 5.0, deadline_at=now - 1.0)
            assert (late.open_seconds, late.left_seconds < 0.0) == (0.0, True)
            seen, wall = subject.reports.recent, clock.wall()
            for index in range(MOST + 5):
                seen.detached(f"gone-{index}", [], "", last_seen=wall - 200 + index)
                seen.failed([f"client-{index}"], 1, 1, "not_finite", wall - 100 + index)
            seen.refused("w1", 1, 1, "too_late", wall + 50)  # the clock was set back since
            after = details(subject, clock)
            assert (len(after.departed), after.departed_workers) == (MOST, MOST + 5)
            assert after.departed[0].worker == f"gone-{MOST + 4}"
            assert after.departed[0].reason == "went_away"
            newest = [(each.WhichOneof("who"), each.client or each.worker) for each in after.dropped[:2]]
            assert newest == [("worker", "w1"), ("client", f"client-{MOST + 4}")]
            assert len(after.dropped) == MOST
            assert after.dropped[0].seconds_ago == 0.0

        simulate(scene, lambda: driver(tmp_path, clients=("a", "b", "c")))
