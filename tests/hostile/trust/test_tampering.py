"""A state directory that was changed behind the coordinator's back, or put back to an older day."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from processes.federation import Federation
from wire.hostile import CLIENTS

pytestmark = pytest.mark.e2e
STORAGE, REFUSED = 4, 3


def federation(root: Path) -> Federation:
    return Federation(
        root,
        **{
            "run.clients": CLIENTS,
            "run.rounds": 2,
            "run.when_done": "serve",
            "round.cohort_size": 4,
            "method.config": {"parameters": 2000},
        },
    )


def committed(site: Federation, version: int) -> None:
    site.until(lambda: site.status().version.number == version, f"version {version} commits")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE versions SET record = (SELECT record FROM versions WHERE number = 1) WHERE number = 2",
        "UPDATE attempts SET accepted = '[\"client-000\"]' WHERE round = 1",
    ],
)
def test_a_journal_that_was_changed_is_not_started_on(tmp_path: Path, change: str) -> None:
    with federation(tmp_path) as site:
        site.start_coordinator()
        site.start_worker("w", CLIENTS)
        committed(site, 2)
        assert site.coordinator is not None
        assert site.coordinator.terminate() == 0
        with closing(sqlite3.connect(site.state_dir / "state.sqlite3")) as database:
            database.execute(change)
            database.commit()
        daemon = site.start_coordinator(wait=False)
        assert daemon.process.wait(30) == STORAGE
        said = daemon.log.read_text()
        assert "is not what was written" in said
        assert "Restore the state directory from a backup" in said


def test_workers_do_not_follow_a_coordinator_back_unless_its_operator_says_so(tmp_path: Path) -> None:
    with federation(tmp_path) as site:
        site.start_coordinator(**{"run.rounds": 1})
        worker = site.start_worker("w", CLIENTS)
        committed(site, 1)
        assert site.coordinator is not None
        assert site.coordinator.terminate() == 0
        backup = tmp_path / "backup"
        shutil.copytree(site.state_dir, backup)
        site.start_coordinator()
        committed(site, 2)
        site.until(lambda: worker.events("connected")[1:], "the worker came back")
        honest = site.digests()
        assert site.coordinator.terminate() == 0
        # Yesterday's backup: intact in itself, so the coordinator starts; it is the worker who knows better.
        shutil.rmtree(site.state_dir)
        shutil.copytree(backup, site.state_dir)
        coordinator = site.start_coordinator()
        site.until(lambda: not worker.running, "the worker goes away")
        assert worker.wait() == REFUSED
        said = worker.log.read_text()
        assert "saw version 2" in said
        assert "--accept-rollback" in said
        (line, *_) = site.until(lambda: coordinator.events("history_contradicted"), "the coordinator says so")
        assert (line["worker"], line["worker_version"], line["version"]) == ("w", 2, 1)
        assert site.metric("ssd_coordinator_history_contradictions_total") >= 1
        worker = site.start_worker("w", CLIENTS, config={"worker.accept_rollback": True})
        committed(site, 2)
        assert worker.events("rollback_accepted")
        assert site.digests()[:2] == honest[:2]
