"""Rounds as scalars, and an event file that is written on again and again."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coordinator.cli.track.command import TensorBoardMissing, track_command
from coordinator.cli.track.follow import FEWEST_MISSES, PATIENCE_SECONDS, Copy, NameUnusable, follow
from coordinator.cli.track.history import FIRST_ASK, LiveHistory, StoredHistory
from coordinator.cli.track.scalars import MOST_TAG, MOST_TAGS, Row, rows
from coordinator.cli.track.tensorboard import NAME, EventFile
from coordinator.errors import OperatorFault, StateDirectoryLocked
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.store.journal.sqlite import SqliteJournal
from ssd_wire.messages import BlobRef


def record(
    number: int, attempt: int = 1, outcome: str = "committed", **statistics: float | None
) -> dict[str, Any]:
    return {
        "round": number,
        "attempt": attempt,
        "outcome": outcome,
        "cohort_size": 4,
        "accepted": 3,
        "closed_at": 1000.0 + number,
        "statistics": statistics,
    }


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard reads them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(each.step, each.value) for each in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }


def test_what_a_round_tells_stands_under_what_it_tells_of() -> None:
    told = record(
        7,
        2,
        loss=1.5,
        seconds=3.0,
        bytes_up=9.0,
        quality_version=4.0,
        quality_alignment=0.25,
        privacy_epsilon=2.0,
    )
    training, quality = rows([told], [])
    assert training == Row(
        7,
        1007.0,
        {
            "round/attempt": 2.0,
            "round/cohort_size": 4.0,
            "round/accepted": 3.0,
            "round/seconds": 3.0,
            "round/bytes_up": 9.0,
            "training/loss": 1.5,
            "privacy/epsilon": 2.0,
        },
    )
    # Its round measured the version it started from.
    assert quality == Row(4, 1007.0, {"representation/alignment": 0.25})


def test_evaluations_stand_at_their_version() -> None:
    found = rows(
        [record(2)], [{"version": 0, "values": {"knn": 0.1}}, {"version": 2, "values": {"knn": 0.5}}]
    )
    assert found[1:] == [Row(0, 0.0, {"evaluation/knn": 0.1}), Row(2, 1002.0, {"evaluation/knn": 0.5})]


def test_only_committed_rounds_and_finite_numbers() -> None:
    history = [record(2, 2, loss=None), record(2, 1, "abandoned", loss=1.0), record(3, outcome="open")]
    (row,) = rows(history, [{"version": 2, "values": {"knn": math.inf, "rank": math.nan, "none": None}}])
    assert (row.step, row.values["round/attempt"]) == (2, 2.0)
    assert not {tag for tag in row.values if tag.startswith(("training/", "evaluation/"))}


def test_names_of_strangers_have_an_end() -> None:
    values = {f"{number:05d}" + "x" * 5000: 1.0 for number in range(MOST_TAGS * 2)}
    (row,) = rows([], [{"version": 1, "values": values}])
    assert len(row.values) == MOST_TAGS
    assert max(len(tag) for tag in row.values) == MOST_TAG


def test_what_is_written_is_read_back_and_never_written_twice(tmp_path: Path) -> None:
    found = [Row(1, 5.0, {"a": 1.0, "b": 2.0}), Row(2, 6.0, {"a": 3.0})]
    with EventFile(tmp_path) as file:
        assert file.add(found[:1]) == 2
        assert file.add(found[:1]) == 0
    once = (tmp_path / NAME).read_bytes()
    with EventFile(tmp_path) as file:
        assert file.add(found[:1]) == 0
    assert (tmp_path / NAME).read_bytes() == once
    with EventFile(tmp_path) as file:
        assert file.add(found) == 1
        assert file.add([Row(1, 5.0, {"a": 1.0, "c": 4.0})]) == 1
    assert scalars(tmp_path) == {"a": [(1, 1.0), (2, 3.0)], "b": [(1, 2.0)], "c": [(1, 4.0)]}
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert [each.wall_time for each in reader.Scalars("a")] == [5.0, 6.0]


def test_a_writer_killed_at_any_byte_costs_nothing(tmp_path: Path) -> None:
    found = [Row(step, 1.0, {"a": float(step)}) for step in range(3)]
    with EventFile(tmp_path) as file:
        file.add(found)
    whole = (tmp_path / NAME).read_bytes()
    for end in range(len(whole)):
        (tmp_path / NAME).write_bytes(whole[:end])
        with EventFile(tmp_path) as file:
            file.add(found)
        assert len((tmp_path / NAME).read_bytes()) == len(whole)
    assert scalars(tmp_path) == {"a": [(0, 0.0), (1, 1.0), (2, 2.0)]}


@pytest.mark.parametrize(
    "end", [struct.pack("<QI", 1 << 60, 0), struct.pack("<QI", 4, 0) + b"\xff" * 8], ids=["length", "content"]
)
def test_rubbish_at_the_end_is_cut_off(tmp_path: Path, end: bytes) -> None:
    with EventFile(tmp_path) as file:
        file.add([Row(1, 1.0, {"a": 1.0})])
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole + end)
    with EventFile(tmp_path):
        pass
    assert (tmp_path / NAME).read_bytes() == whole


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with EventFile(tmp_path), pytest.raises(StateDirectoryLocked):
        EventFile(tmp_path)
    with EventFile(tmp_path) as file:
        assert file.add([Row(1, 1.0, {"a": 1.0})]) == 1


class Coordinator:
    """An operator's client of a run that goes on: every look finds another round."""

    def __init__(self, rounds: int, last: int, *, run_id: str = "abc") -> None:
        self.committed = rounds
        self.last = last
        self.run_id = run_id
        self.asked: list[int] = []

    def status(self) -> Mapping[str, Any]:
        self.committed = min(self.last, self.committed + 1)
        phase = "finished" if self.committed == self.last else "training"
        return {"method": "synthetic", "run_id": self.run_id, "phase": phase, "rounds": self.last}

    def rounds(self, limit: int, *, counts_only: bool) -> list[Mapping[str, Any]]:
        assert counts_only, "names are most of an answer, and a long run has many"
        self.asked.append(limit)
        return [record(number, loss=float(number)) for number in range(self.committed, 0, -1)][:limit]

    def evaluations(self) -> list[Mapping[str, Any]]:
        return [{"version": 0, "values": {"knn": 0.5}}]


def test_as_many_rounds_are_asked_for_as_are_new() -> None:
    client = Coordinator(FIRST_ASK * 5, FIRST_ASK * 5)
    history = LiveHistory(client)  # type: ignore[arg-type]
    assert len(history.rounds(0)) == FIRST_ASK * 5
    assert client.asked == [100, 400, 1600]
    client.asked.clear()
    assert len(history.rounds(FIRST_ASK * 5 - 10)) == FIRST_ASK
    assert client.asked == [100]


def track(client: Coordinator, *arguments: str) -> Any:
    @contextmanager
    def connect(*_: object) -> Iterator[Any]:
        yield client

    command: click.Command = track_command(connect)
    return CliRunner().invoke(command, list(arguments), catch_exceptions=True)


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    client = Coordinator(0, 4)
    done = track(client, "--tensorboard", str(tmp_path), "--follow", "--every", "0.1", "--format", "json")
    assert done.exit_code == 0, done.exception
    assert [line.count('"written"') for line in done.output.splitlines()] == [1] * 4
    found = scalars(tmp_path / "synthetic-abc")
    assert found["training/loss"] == [(number, float(number)) for number in range(1, 5)]
    assert found["evaluation/knn"] == [(0, 0.5)]


class Gone(OperatorFault):
    """Nobody answers."""


class Script:
    """What a coordinator says look after look: a run, how far it is, what was measured of its newest version; None:
    it does not answer. What comes after the last is the last again."""

    def __init__(self, *looks: tuple[str, int, int, bool] | None) -> None:
        self.looks = list(looks)
        self.looked = 0

    def status(self) -> Mapping[str, Any]:
        look = self.looks[min(self.looked, len(self.looks) - 1)]
        self.looked += 1
        if look is None:
            raise Gone("nobody answers")
        run_id, self.committed, rounds, self.measured = look
        phase = "finished" if self.committed == rounds else "training"
        return {"method": "m", "run_id": run_id, "phase": phase, "rounds": rounds}

    def rounds(self, limit: int, *, counts_only: bool) -> list[Mapping[str, Any]]:
        return [record(number, loss=1.0) for number in range(self.committed, 0, -1)][:limit]

    def evaluations(self) -> list[Mapping[str, Any]]:
        return [{"version": self.committed, "values": {"knn": 0.5}}] if self.measured else []


def followed(folder: Path, script: Script, every: float = 10.0) -> tuple[list[tuple[str, int]], float]:
    """Run and newest round at every look that found something; how long it took, in seconds of no real clock."""
    told: list[tuple[str, int]] = []
    now = 0.0

    def pause() -> None:
        nonlocal now
        now += every
        assert now < 10_000, "it does not end"

    def said(path: Path, newest: int, _: int) -> None:
        told.append((path.parent.name, newest))

    with Copy(LiveHistory(script), folder, EventFile, said) as copy:  # type: ignore[arg-type]
        try:
            follow(copy, copy.write(copy.read()), pause, lambda: now)
        except Gone:
            told.append(("gone", -1))
    return told, now


class TestFollowing:
    def test_an_evaluation_that_comes_after_the_last_round_is_waited_for(self, tmp_path: Path) -> None:
        script = Script(("r", 1, 2, True), ("r", 2, 2, False), ("r", 2, 2, False), ("r", 2, 2, True))
        told, _ = followed(tmp_path, script)
        assert told == [("m-r", 1), ("m-r", 2), ("m-r", 2)]
        assert scalars(tmp_path / "m-r")["evaluation/knn"] == [(1, 0.5), (2, 0.5)]

    def test_what_is_all_there_at_once_is_looked_at_once_more(self, tmp_path: Path) -> None:
        followed(tmp_path, Script(("r", 2, 2, False)))
        script = Script(("r", 2, 2, False), ("r", 2, 2, True))
        assert followed(tmp_path, script)[0] == [("m-r", 2)]

    def test_a_new_run_at_the_same_address_has_a_file_of_its_own(self, tmp_path: Path) -> None:
        script = Script(("r", 1, 3, True), ("r", 2, 3, True), None, ("s", 1, 2, False), ("s", 2, 2, True))
        told, _ = followed(tmp_path, script)
        assert told == [("m-r", 1), ("m-r", 2), ("m-s", 1), ("m-s", 2)]
        assert scalars(tmp_path / "m-r")["training/loss"] == [(1, 1.0), (2, 1.0)]
        assert scalars(tmp_path / "m-s")["training/loss"] == [(1, 1.0), (2, 1.0)]
        assert scalars(tmp_path / "m-s")["evaluation/knn"] == [(2, 0.5)]

    def test_a_new_run_with_a_name_that_is_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(NameUnusable):
            copy = Copy(
                LiveHistory(Script(("r", 1, 3, True), ("../s", 1, 3, True))),  # type: ignore[arg-type]
                tmp_path / "logs", EventFile, lambda *_: None,
            )  # fmt: skip
            with copy:
                follow(copy, copy.write(copy.read()), lambda: None, lambda: 0.0)
        assert [path.name for path in (tmp_path / "logs").iterdir()] == ["m-r"]

    @pytest.mark.parametrize("every", [1.0, 10.0, 61.0, 600.0])
    def test_missed_answers_count_by_time_and_by_number(self, tmp_path: Path, every: float) -> None:
        told, took = followed(tmp_path, Script(("r", 1, 3, True), None), every)
        assert told == [("m-r", 1), ("gone", -1)]
        assert max(PATIENCE_SECONDS, every * FEWEST_MISSES - 1) < took
        assert took <= max(PATIENCE_SECONDS + every, every * FEWEST_MISSES)

    def test_an_answer_in_between_begins_the_count_anew(self, tmp_path: Path) -> None:
        away = [None] * 2
        script = Script(("r", 1, 3, True), *away, ("r", 2, 3, True), *away, ("r", 3, 3, True))
        assert followed(tmp_path, script, 61.0)[0] == [("m-r", 1), ("m-r", 2), ("m-r", 3)]

    def test_a_coordinator_that_ended_with_its_run_is_no_fault(self, tmp_path: Path) -> None:
        """With `when_done = "exit"` it may be gone before anybody saw it finished."""
        assert followed(tmp_path, Script(("r", 1, 2, True), ("r", 2, 2, True), None))[0][-1] == ("m-r", 2)

        class Last(Script):
            """Says that it trains, then sends the last round."""

            def rounds(self, limit: int, *, counts_only: bool) -> list[Mapping[str, Any]]:
                self.committed = 2
                return super().rounds(limit, counts_only=counts_only)

        assert followed(tmp_path / "b", Last(("r", 1, 2, True), None))[0] == [("m-r", 2)]


def test_a_stored_run_that_is_to_have_more_rounds_is_not_finished(tmp_path: Path) -> None:
    blob = BlobRef(digest="ab" * 32, size=4)
    config = {"run": {"rounds": 1}, "method": {"name": "m"}}
    run = RunRecord(
        run_id="r",
        created_at=1.0,
        config=config,
        declaration={},
        declaration_blob=blob,
        declaration_digest="",
    )
    store = SqliteJournal(tmp_path)
    store.create_run(run, VersionRecord(number=0, model_digest="m", full=blob, delta=None))
    history = StoredHistory(tmp_path)
    seen = [history.standing().finished]
    for change in (store.finish_run, store.reopen_run, store.finish_run):
        change()
        seen.append(history.standing().finished)
    store.close()
    assert seen == [False, True, False, True]
    assert (history.standing().method, history.standing().run_id) == ("m", "r")


@pytest.mark.parametrize("run_id", ["../../etc", "a/b", "x" * 500, "a\nb"])
def test_no_coordinator_chooses_where_is_written(tmp_path: Path, run_id: str) -> None:
    client = Coordinator(1, 1, run_id=run_id)
    done = track(client, "--tensorboard", str(tmp_path / "logs"))
    assert isinstance(done.exception, NameUnusable)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "coordinator.cli.track.tensorboard")
    for name in [each for each in sys.modules if each.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = track(Coordinator(1, 1), "--tensorboard", str(tmp_path))
    assert isinstance(done.exception, TensorBoardMissing)
    assert "pip install '.[tensorboard]'" in str(done.exception)
