"""The method of docs/methods.md, copied from the page into a file outside the package and run by real daemons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from processes.federation import ROOT, Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import client_ids, iid, save

pytestmark = pytest.mark.e2e
CLIENTS = client_ids(3)
CONFIG = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 16, "width": 4},
    "batch_size": 64,
    "lr": 0.05,
}


def the_page_example() -> str:
    page = (ROOT / "docs" / "methods.md").read_text()
    section = page.split("## Write your own method\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return str(code)


def settings(name: Path | str, **config: Any) -> dict[str, Any]:
    return {
        "run.clients": list(CLIENTS),
        "run.rounds": 2,
        "round.cohort_size": 3,
        "method.name": name,
        "method.config": {**CONFIG, **config},
    }


def test_the_page_shows_a_whole_method_in_under_sixty_lines() -> None:
    assert len(the_page_example().splitlines()) < 60


def test_a_method_from_the_page_runs_where_both_operators_named_it_and_nowhere_else(tmp_path: Path) -> None:
    """It is FedProx under another name, so it must end with FedProx's very model."""
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    partition = tmp_path / "partition.json"
    labels = digits.train.labels.tolist()
    save(iid(len(labels), 3, 1, labels=labels, dataset="digits"), partition)
    data = {"data.kind": "digits", "data.partition": partition}
    files = [tmp_path / side / "held.py" for side in ("coordinators", "workers")]
    for file in files:
        file.parent.mkdir()
        file.write_text(the_page_example())

    root = tmp_path / "own"
    root.mkdir()
    with Federation(root, **settings(files[0], pull=0.5)) as federation:
        federation.start_coordinator()
        refusing = federation.start_worker("careful", CLIENTS, config=data)
        federation.until(
            lambda: "name your file of it in [methods]" in refusing.log.read_text(), "the worker refuses"
        )
        assert federation.status().version.number == 0
        refusing.terminate()
        federation.move(CLIENTS, to="willing")
        federation.start_worker("willing", CLIENTS, config={**data, "methods.held": files[1]})
        assert federation.finish() == 0
        store = federation.store()
        try:
            newest = store.versions()[-1]
        finally:
            store.close()
        assert newest.number == 2
        assert newest.figures.statistics["distance"] > 0
        own = federation.digests()

    root = tmp_path / "built_in"
    root.mkdir()
    with Federation(root, **settings("fedprox", mu=0.5)) as federation:
        federation.start_coordinator()
        federation.start_worker("worker", CLIENTS, config=data)
        assert federation.finish() == 0
        assert federation.digests() == own
