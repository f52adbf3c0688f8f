"""Spans of masked rounds through the real driver: phases of secure aggregation, and a trace that outlives a process."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from coordinator.telemetry.round_spans import RoundSpans
from coordinator.telemetry.tracing import RoundTracing
from secure.masked_place import THREE, Place, committed, die_at, play
from ssd.daemon.tracing.context import attempt_context, phase_context
from ssd.daemon.tracing.spans import Span


def traced(root: Path, **changes: object) -> tuple[Place, list[Span]]:
    """A place of one round, and the spans of all its processes."""
    place, out = Place(root, rounds=1, **changes), []
    clock = iter(range(1_700_000_000, 1_800_000_000))
    place.tracing = lambda: RoundTracing(RoundSpans("run", 1.0), out.append, lambda: next(clock))
    return place, out


def test_a_masked_round_shows_the_phases_of_its_sum(tmp_path: Path) -> None:
    place, out = traced(tmp_path, level="active")

    async def scene(place: Place) -> None:
        place.begin(*place.workers({"w1": "ab", "w2": "cd", "w3": "e", "w4": "f"}).values())
        await place.until(committed(place, 1))

    play(scene, place)
    root = attempt_context("run", 1, 1)
    found = {span.name: span for span in out if span.name != "client_task"}
    assert set(found) == {
        "round", "training", "unmasking", "committing", "make_version",
        "secure.offered", "secure.rostered", "secure.uploading", "secure.signing", "secure.revealing",
    }  # fmt: skip
    assert {span.context.trace_id for span in out} == {root.trace_id}
    secure = [span for span in out if span.name.startswith("secure.")]
    assert {span.parent for span in secure} == {root}
    assert all(before.end <= after.start for before, after in pairwise(secure))
    assert found["make_version"].parent == found["committing"].context
    assert found["secure.revealing"].end <= found["committing"].start
    assert found["unmasking"].end <= found["committing"].start
    tasks = [span for span in out if span.name == "client_task"]
    assert [span.attributes["ssd.outcome"] for span in tasks] == ["accepted"] * 6
    assert {span.parent for span in tasks} == {phase_context(root, "training")}


def test_a_coordinator_that_dies_while_it_unmasks_goes_on_in_the_same_trace(tmp_path: Path) -> None:
    place, out = traced(tmp_path)

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        die_at(place.store, "close_attempt", "after")
        place.begin(*workers.values())
        await place.crashed()
        assert "round" not in {span.name for span in out}
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))

    play(scene, place)
    (whole,) = [span for span in out if span.name == "round"]
    assert whole.context == attempt_context("run", 1, 1)
    assert (whole.attributes["ssd.outcome"], whole.attributes["ssd.accepted"]) == ("committed", 6)
    assert [event.name for event in whole.events] == ["coordinator_restarted"]
    # It began when the attempt was opened, by the process before, not when this one started.
    assert whole.start == round(place.store.attempts()[-1].opened_at * 1e9)
    assert {span.context.trace_id for span in out} == {whole.context.trace_id}


def test_keys_that_were_lost_with_the_process_end_the_first_trace_and_begin_another(tmp_path: Path) -> None:
    place, out = traced(tmp_path)

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w3"].dies_before = "upload"
        place.begin(*workers.values())
        await place.until(place.tasks[2].done)
        await place.stop()
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))

    play(scene, place)
    first, second = (span for span in out if span.name == "round")
    assert (first.context, first.attributes["ssd.outcome"]) == (attempt_context("run", 1, 1), "abandoned")
    assert "coordinator_restarted" in first.error
    assert (second.context, second.attributes["ssd.outcome"]) == (attempt_context("run", 1, 2), "committed")
