"""Every example configuration loads, and those that belong together fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config.sections import load as load_coordinator
from worker.config.sections import load as load_worker

CONFIG = Path(__file__).parents[3] / "deploy" / "config"
WORKERS = sorted(CONFIG.glob("worker*.toml"))
COORDINATORS = sorted(CONFIG.glob("coordinator*.toml"))


def test_every_example_is_one_of_the_two_kinds() -> None:
    assert sorted(CONFIG.glob("*.toml")) == sorted([*WORKERS, *COORDINATORS])
    assert WORKERS
    assert COORDINATORS


@pytest.mark.parametrize("path", WORKERS, ids=lambda path: path.name)
def test_a_workers_example_loads_and_finds_a_coordinators(path: Path) -> None:
    worker = load_worker(path, {}, {})
    addresses = {load_coordinator(each, {}, {}).coordinator.listen for each in COORDINATORS}
    assert worker.worker.coordinator in addresses
    assert worker.worker.http_listen not in {
        load_coordinator(each, {}, {}).coordinator.http_listen for each in COORDINATORS
    }


@pytest.mark.parametrize("folder", ["compose", "kubernetes"])
def test_deployed_configurations_load_and_the_worker_finds_the_coordinator(folder: str) -> None:
    place = CONFIG.parent / folder
    coordinator = load_coordinator(place / "coordinator.toml", {}, {})
    worker = load_worker(place / "worker.toml", {}, {})
    assert worker.worker.coordinator.split(":")[1] == coordinator.coordinator.listen.split(":")[1]
    assert not coordinator.transport.insecure
    assert not worker.transport.insecure
