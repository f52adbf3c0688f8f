"""Why a run cannot be created: said before anything is made, with what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.config.new_run import new_run_of
from coordinator.config.sections import CoordinatorConfig, SecureAggregationSection
from coordinator.core.policy import Mode
from coordinator.errors import ConfigInvalid
from coordinator.rounds.preconditions import can_open, cautions, obstacles
from coordinator.rounds.run_lifecycle import create_run
from coordinator.runtime.clock import SystemClock
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.journal.sqlite import SqliteJournal
from rounds.in_process_host import InProcessHost
from ssd.method.registry import load
from ssd.secagg.protocol.graph import dropouts
from ssd.updates.declaration import Declaration
from training.training_samples import SMALL

POSITION = {"dimension": 8, "alpha": 2.0, "assignment": "position"}


def declaration(**config: Any) -> Declaration:
    return load("synthetic", config).declare()


def test_a_plain_run_has_none() -> None:
    for mode in Mode:
        assert list(obstacles(declaration(), mode, "off")) == []
        assert list(obstacles(declaration(hook=True, collect=True), mode, "off")) == []


def test_vectors_by_position_want_a_reproducible_run() -> None:
    assert list(obstacles(declaration(scaling=POSITION), Mode.REPRODUCIBLE, "off")) == []
    (found,) = obstacles(declaration(scaling=POSITION), Mode.ELASTIC, "off")
    assert "run.mode = reproducible" in found
    assert "assignment = client" in found


@pytest.mark.parametrize("level", ["passive", "active"])
def test_secure_aggregation_hides_what_a_method_collects(level: str) -> None:
    (found,) = obstacles(declaration(hook=True, collect=True), Mode.ELASTIC, level)
    assert "group 'encoder', statistic 'loss_sum'" in found
    assert "secure_aggregation.level = off" in found


@pytest.mark.parametrize("level", ["passive", "active"])
def test_secure_aggregation_takes_what_only_needs_sums(level: str) -> None:
    assert list(obstacles(declaration(), Mode.ELASTIC, level)) == []
    assert list(obstacles(declaration(hook=True), Mode.REPRODUCIBLE, level)) == []


STEERABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "rates of the last visit": ("fedavg", {"lr_lag": True}),
    "rates of the last visit, in a method of the family": ("fedgen", {"lr_lag": True}),
    "models that clients keep": ("local_only", {}),
    "backbones that clients keep": ("backbone_distillation", {"restart": "R2"}),
    "self-supervised models that clients keep": ("local_only_ssl", {}),
    "the same, asked of another method": ("fed_align_uniform", {"start": "own"}),
    "dimensions by position in the sample": ("ssd", {"assignment": "position"}),
}


@pytest.mark.parametrize("level", ["passive", "active"])
@pytest.mark.parametrize(("name", "config"), STEERABLE.values(), ids=STEERABLE)
def test_secure_aggregation_refuses_what_lets_a_coordinator_single_a_client_out(
    name: str, config: dict[str, Any], level: str
) -> None:
    """With such a setting all but one client can be made to train at a rate of 0, or from where they were before: then
    the sum is that one's update."""
    declared = load(name, config).declare()
    assert list(obstacles(declared, Mode.REPRODUCIBLE, "off")) == []
    (found,) = obstacles(declared, Mode.REPRODUCIBLE, level)
    assert "count for nothing in a masked sum" in found


def test_secure_aggregation_takes_the_same_methods_without_those_settings() -> None:
    for name in ("fedavg", "backbone_distillation", "fed_align_uniform", "ssd"):
        assert list(obstacles(load(name, {}).declare(), Mode.REPRODUCIBLE, "active")) == []


def test_differential_privacy_wants_nothing_beside_the_noise() -> None:
    for level in ("off", "passive"):
        (found,) = obstacles(declaration(), Mode.ELASTIC, level, private=True)
        assert "'buffers' is averaged exactly" in found
        assert "buffers = local" in found


@pytest.mark.parametrize("method", ["ssd", "fed_align_uniform"])
def test_a_method_that_keeps_its_buffers_on_the_clients_runs_under_differential_privacy(method: str) -> None:
    averaged = load(method, {**SMALL, "buffers": "averaged"}).declare()
    assert "'buffers'" in " ".join(obstacles(averaged, Mode.ELASTIC, "passive", private=True))
    local = load(method, {**SMALL, "buffers": "local"}).declare()
    assert list(obstacles(local, Mode.ELASTIC, "passive", private=True)) == []


@pytest.mark.parametrize(
    ("changes", "method", "said"),
    [
        (
            {"privacy": {"mechanism": "central"}},
            {},
            r"privacy\.mechanism: group 'buffers'",
        ),
        (
            {"secure_aggregation": {"level": "active"}},
            {"hook": True, "collect": True},
            r"group 'encoder'.*never shows",
        ),
        ({"run": {"expected_clients": 4}}, {"scaling": POSITION}, r"run\.mode = reproducible"),
    ],
)
def test_a_run_with_an_obstacle_is_not_created(
    tmp_path: Path, changes: Mapping[str, Any], method: Mapping[str, Any], said: str
) -> None:
    config = CoordinatorConfig.model_validate(
        {
            "coordinator": {"state_dir": tmp_path},
            "transport": {"insecure": True},
            "method": {"name": "synthetic", "config": method},
            **changes,
        }
    )
    store, blobs = SqliteJournal(tmp_path), FileBlobs(tmp_path)
    with pytest.raises(ConfigInvalid, match=said):
        asyncio.run(create_run(new_run_of(config), store, blobs, InProcessHost(), SystemClock()))
    assert store.current_run() is None
    assert not blobs.digests()


# ---------------------------------------------------------------------------------------------------- cautions


def said(mode: Mode = Mode.REPRODUCIBLE, invited: int = 10, *, private: bool = False, **changes: Any) -> str:
    section = SecureAggregationSection(**{"level": "passive", **changes})
    return " / ".join(cautions(section, mode, invited, private=private))


def test_sums_of_changing_cohorts_without_noise_are_named() -> None:
    assert "differ by one is that one's update" in said(Mode.ELASTIC)
    assert "differ by one" not in said(Mode.ELASTIC, private=True)
    assert "differ by one" not in said(Mode.REPRODUCIBLE)


def test_three_workers_and_default_settings_lose_an_attempt_with_one_dead_worker() -> None:
    assert "with up to 3 workers no dropout is survived" in said(invited=3)
    assert "assumed_corrupt = 0" in said(invited=3)
    assert said(invited=3, assumed_corrupt=0.0, tolerated_dropout=0.34, min_participants=3) == ""
    assert said(invited=3, tolerated_dropout=0.0) == ""


@pytest.mark.parametrize("level", ["passive", "active"])
def test_the_defaults_survive_one_from_five_workers_on_and_say_so(level: str) -> None:
    assert "a dropout is survived from 5 workers on" in said(invited=10, level=level)
    for n in range(5, 40):
        assert can_open(n, 100_000, 200_000, level)
        assert dropouts(n, 200_000) >= 1


def test_settings_under_which_no_sum_can_be_opened() -> None:
    assert "no number of workers up to 2" in said(invited=2)
    assert "no number of workers up to 3" in said(invited=3, tolerated_dropout=0.4)


def test_in_the_clear_there_is_nothing_to_be_careful_about() -> None:
    assert said(Mode.ELASTIC, level="off") == ""
