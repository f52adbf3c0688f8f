"""`ssd-coordinator explain`: every way a client's part in a round can end is told apart, from notes and without them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.explain import explain, text
from coordinator.cli.main import main
from coordinator.core import effects, events
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.store.journal.reading import RoundRecords, read_round
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.telemetry.client_history import MOST_NOTES, ClientHistory, Note
from ssd_wire.messages import BlobRef

COHORT = ("a", "b", "c")


def opened(round_number: int = 1, attempt: int = 1, cohort: tuple[str, ...] = COHORT) -> effects.OpenAttempt:
    return effects.OpenAttempt(round=round_number, attempt=attempt, cohort=cohort)


def sent(worker: str, *clients: str, attempt: int = 1) -> effects.SendTrain:
    return effects.SendTrain(
        worker=worker, round=1, attempt=attempt, clients=clients, upload_within_seconds=0.0
    )


def failed(worker: str, *clients: str, attempt: int = 1) -> events.ClientFailed:
    return events.ClientFailed(
        now=0.0, worker=worker, round=1, attempt=attempt, clients=clients, reason="oom"
    )


def play(history: ClientHistory, event: events.Event, todo: list[effects.Effect], now: float) -> None:
    """As the driver does."""
    history.record_event(event, now)
    for effect in todo:
        history.done(effect, now)


def begun() -> ClientHistory:
    history = ClientHistory()
    play(history, events.Tick(now=0.0), [opened(), sent("w1", "a", "b"), sent("w2", "c")], 100.0)
    return history


def told(history: ClientHistory, attempt: int = 1) -> dict[str, list[Any]]:
    return {client: each["notes"] for client, each in history.unwritten()[1, attempt].items()}


class TestChronicle:
    def test_who_was_asked_by_whom(self) -> None:
        assert told(begun()) == {
            "a": [[100.0, "asked", "", "w1"]],
            "b": [[100.0, "asked", "", "w1"]],
            "c": [[100.0, "asked", "", "w2"]],
        }

    def test_a_failure_of_nobody_in_particular_is_of_all_that_the_worker_still_owes(self) -> None:
        history = begun()
        history.upload(1, 1, ("a",), Note(101.0, "accepted", "", "w1"))
        play(history, failed("w1"), [], 102.0)
        notes = told(history)
        assert [note[1] for note in notes["a"]] == ["asked", "accepted"]
        assert notes["b"][-1] == [102.0, "failed", "oom", "w1"]
        assert len(notes["c"]) == 1

    def test_revoked_clients_and_workers_that_went_away(self) -> None:
        history = begun()
        history.upload(1, 1, ("a",), Note(101.0, "accepted", "", "w1"))
        play(history, events.WorkerDetached(now=0.0, worker="w1"), [], 102.0)
        play(history, events.ClientRevoked(now=0.0, client="c"), [], 103.0)
        play(history, events.ClientRevoked(now=0.0, client="stranger"), [], 103.0)
        assert {client: notes[-1][1] for client, notes in told(history).items()} == {
            "a": "accepted", "b": "away", "c": "revoked",
        }  # fmt: skip

    def test_what_comes_late_belongs_to_its_own_attempt(self) -> None:
        history = begun()
        assert set(history.unwritten()) == {(1, 1)}
        assert history.unwritten() == {}
        play(history, events.Tick(now=0.0), [opened(1, 2), sent("w1", "a", attempt=2)], 200.0)
        history.upload(1, 1, ("b",), Note(201.0, "discarded", "stale_attempt", "w1"))
        found = history.unwritten()
        assert [note[1] for note in found[1, 1]["b"]["notes"]] == ["asked", "discarded"]
        assert set(found[1, 2]) == {"a"}
        play(history, failed("w1", "a"), [], 202.0)
        play(history, events.Tick(now=0.0), [opened(2, 1), opened(3, 1)], 300.0)
        history.upload(1, 1, ("b",), Note(301.0, "discarded", "too_late", "w1"))
        assert history.unwritten() == {}

    def test_nobody_writes_into_the_record_of_anothers_client(self) -> None:
        history = begun()
        history.upload(1, 1, ("a", "c"), Note(101.0, "rejected", "client_not_hosted", "w2"))
        play(history, failed("w2", "a", "c"), [], 102.0)
        assert {client: [note[1] for note in each] for client, each in told(history).items()} == {
            "a": ["asked"], "b": ["asked"], "c": ["asked", "rejected", "failed"],
        }  # fmt: skip

    def test_strangers_and_floods_cost_nothing(self) -> None:
        history = begun()
        for _ in range(1000):
            history.upload(1, 1, ("b", "stranger"), Note(101.0, "rejected", "not_finite", "w1"))
            history.upload(9, 9, ("b",), Note(101.0, "rejected", "not_finite", "w1"))
        (found,) = history.unwritten().values()
        assert "stranger" not in found
        assert len(found["b"]["notes"]) == MOST_NOTES
        assert found["b"]["dropped"] == 1001 - MOST_NOTES

    def test_an_event_before_any_attempt_is_nothing(self) -> None:
        history = ClientHistory()
        for event in (
            events.WorkerDetached(now=0.0, worker="w"),
            events.ClientRevoked(now=0.0, client="a"),
            failed("w"),
        ):
            play(history, event, [], 1.0)
        assert history.unwritten() == {}


def attempt_of(
    outcome: str, accepted: tuple[str, ...] = (), cohort: tuple[str, ...] = COHORT
) -> AttemptRecord:
    return AttemptRecord(
        round=1, attempt=1, base_version=0, base_digest="m0", cohort=cohort, opened_at=100.0, outcome=outcome,
        accepted=accepted, closed_at=None if outcome == "open" else 110.0,
    )  # fmt: skip


def notes(**clients: list[list[Any]]) -> dict[str, Any]:
    return {client: {"notes": each, "dropped": 0} for client, each in clients.items()}


ASKED = [100.5, "asked", "", "w"]


class TestExplanation:
    @pytest.mark.parametrize(
        ("outcome", "accepted", "noted", "expected"),
        [
            ("committed", ("a",), [ASKED, [101.0, "accepted", "", "w"]], ("included", None)),
            ("committed", ("a",), None, ("included", None)),
            ("committed", (), [ASKED, [101.0, "failed", "oom", "w"]], ("failed", "oom")),
            ("committed", (), [ASKED, [101.0, "rejected", "norm", "w"]], ("rejected", "norm")),
            ("committed", (), [ASKED, [112.0, "discarded", "too_late", "w"]], ("late", "too_late")),
            ("committed", (), [ASKED, [112.0, "discarded", "duplicate", "w"]], ("discarded", "duplicate")),
            ("committed", (), [ASKED, [101.0, "away", "", "w"]], ("away", None)),
            (
                "committed",
                (),
                [ASKED, [101.0, "revoked", "", ""], [102.0, "failed", "x", "w"]],
                ("revoked", None),
            ),
            ("committed", (), [ASKED], ("no answer", None)),
            ("committed", (), [], ("not connected", None)),
            ("committed", (), None, ("unknown", None)),
            ("open", (), None, ("under way", None)),
            ("open", (), [ASKED], ("under way", None)),
            (
                "abandoned",
                (),
                [ASKED, [101.0, "accepted", "", "w"]],
                ("accepted", "the attempt was abandoned"),
            ),
        ],
    )
    def test_every_fate(
        self, outcome: str, accepted: Any, noted: Any, expected: tuple[str, str | None]
    ) -> None:
        others = {} if noted is None else notes(b=[ASKED])
        kept = {**others, **({} if not noted else notes(a=noted))}
        found = explain(1, RoundRecords(newest_round=1, attempts=((attempt_of(outcome, accepted), kept),)))
        client = found["attempts"][0]["clients"][0]
        assert (client["client"], client["fate"], client["reason"]) == ("a", *expected)

    def test_a_table_for_people(self) -> None:
        kept = notes(
            a=[ASKED, [103.0, "accepted", "", "w"]],
            b=[
                ASKED,
                [101.0, "failed", "oom", "w"],
                [102.0, "asked", "", "w"],
                [104.0, "rejected", "norm", "w"],
            ],
        )
        found = RoundRecords(
            newest_round=1,
            attempts=((attempt_of("committed", ("a",)), kept),),
            bindings={"c": "w9"},
            model_digest="d",
        )
        lines = text(explain(1, found)).splitlines()
        assert lines[0] == "round 1, attempt 1: committed"
        assert lines[1].endswith("for 10.0 s; 3 invited: 1 included, 1 rejected, 1 not connected")
        assert [line.split() for line in lines[4:]] == [
            ["a", "w", "\x1b[32mincluded\x1b[0m", "1", "0", "0", "0.5", "s", "3.0", "s"],
            ["b", "w", "\x1b[31mrejected\x1b[0m", "2", "1", "1", "0.5", "s", "-", "norm"],
            ["c", "w9", "not", "connected", "0", "0", "0", "-", "-"],
        ]


def a_run(state_dir: Path) -> SqliteJournal:
    blob = BlobRef(digest="ab" * 32, size=4)
    store = SqliteJournal(state_dir)
    run = RunRecord(
        run_id="r", created_at=1.0, config={}, declaration={}, declaration_blob=blob, declaration_digest=""
    )
    store.create_run(run, VersionRecord(number=0, model_digest="m0", full=blob, delta=None))
    store.register_clients(COHORT, 1.0)
    return store


class TestCommand:
    def test_a_round_while_a_coordinator_has_the_store_open(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        store = a_run(tmp_path)
        store.open_attempt(attempt_of("open"))
        store.keep_client_history(1, 1, notes(a=[ASKED]))
        store.abandon_attempt(1, 1, "deadline", 110.0)
        assert self.run("explain", "1", "--state-dir", str(tmp_path), "--format", "json") == 0
        told = json.loads(capfd.readouterr().out)
        assert (told["committed"], told["attempts"][0]["reason"]) == (False, "deadline")
        assert [each["fate"] for each in told["attempts"][0]["clients"]] == [
            "no answer",
            "not connected",
            "not connected",
        ]
        store.close()
        assert self.run("explain", "1", "--state-dir", str(tmp_path)) == 0
        assert "round 1, attempt 1: abandoned: deadline" in capfd.readouterr().out
        assert self.run("explain", "2", "--state-dir", str(tmp_path)) == 3
        assert "round 2 was never opened: the newest is 1" in capfd.readouterr().err

    def test_no_run_no_folder_no_number(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert self.run("explain", "1", "--state-dir", str(tmp_path)) == 3
        assert "there is no run in" in capfd.readouterr().err
        a_run(tmp_path).close()
        assert self.run("explain", "1", "--state-dir", str(tmp_path)) == 3
        assert "none was opened yet" in capfd.readouterr().err
        assert self.run("explain", "0", "--state-dir", str(tmp_path)) == 2
        (tmp_path / "state.sqlite3").write_bytes(b"rubbish" * 1000)
        assert self.run("explain", "1", "--state-dir", str(tmp_path)) == 4

    def test_a_database_from_before_there_were_chronicles(self, tmp_path: Path) -> None:
        store = a_run(tmp_path)
        store.open_attempt(attempt_of("open"))
        store.close()
        with sqlite3.connect(tmp_path / "state.sqlite3") as db:
            db.execute("DROP TABLE chronicles")
            db.execute("UPDATE schema_version SET version = 5")
        db.close()
        found = read_round(tmp_path, 1)
        assert found is not None
        assert [notes for _, notes in found.attempts] == [{}]

    @staticmethod
    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return int(ended.value.code or 0)
