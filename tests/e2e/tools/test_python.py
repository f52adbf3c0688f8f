"""docs/python.md: its blocks, run one after the other as a notebook would; and a running coordinator asked from Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ssd
from processes.federation import ROOT, Federation
from ssd.data.images.errors import DataError
from ssd.demo.settings import TRAINING
from ssd.federation.records import DaemonFailed

pytestmark = pytest.mark.e2e
PAGE = ROOT / "docs" / "python.md"


def photographs(root: Path) -> None:
    for number, name in enumerate(["garden/a", "garden/b", "garden/c", "garden/d", "garden/e", "market/a", "market/b",
                                   "market/c", "market/d", "market/e", "probe/cats/a", "probe/cats/b", "probe/dogs/a",
                                   "probe/dogs/b"]):  # fmt: skip
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 32)).save(path)
    (root / "garden" / "notes.txt").write_text("words")


def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(tmp_path / "photographs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # the page's code is what is tried
    result, own, found = names["result"], names["own"], names["found"]
    assert re.fullmatch("[0-9a-f]{64}", result.model_digest)
    assert [row["round"] for row in result.rounds] == [1, 2]
    assert 0 < result.evaluations[-1]["linear_probe_all"] <= 1
    assert {row["client"] for row in own.clients} == {"garden", "market"}
    assert found.features.shape == (5, 32)
    assert found.names[:3] == ("a.png", "b.png", "c.png")
    assert "1 other file (1 .txt)" in found.left_out
    printed = capsys.readouterr().out
    assert "round 2 of 2, loss " in printed
    assert "takes images [N, 3, 16, 16], not [5, 3, 20, 20]" in printed
    with pytest.raises(RuntimeError, match="ran already"):
        names["run"].run()
    with pytest.raises(FileExistsError, match="holds something"):
        ssd.Federation(data="digits", folder="runs/notebook")


def test_what_cannot_be_is_said_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for wrong, words in (
        ({"data": "digit"}, "no data set 'digit'"),
        ({"data": {"a": tmp_path / "absent"}, "config": {"image": {"size": 8, "channels": 1}}}, "client 'a' is not there"),
        ({"data": {}, "config": {"image": {"size": 8, "channels": 1}}}, "there is no client"),
        ({"data": "cifar10"}, "config says image"),
        ({"config": {"lr": 1.0}}, 'config has no "image"'),
        ({"rounds": 0}, "at least one round"),
        ({"seed": -1}, "a seed is not negative"),
        ({"data": ssd.Split(clients=2), "workers": 3}, "2 clients cannot be dealt among 3 workers"),
        ({"secure_aggregation": "on"}, "off, passive or active, not 'on'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ssd.Federation(**{"data": "digits", "folder": folder, **wrong})  # type: ignore[arg-type]
    assert issubclass(DataError, ValueError)


def test_a_failed_daemon_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """And nothing goes on running: the second federation finds its folder free of processes."""
    broken = {**TRAINING, "lr": "fast"}
    with pytest.raises(DaemonFailed) as failed:
        ssd.Federation(data="digits", config=broken, rounds=1, folder=tmp_path / "run").run(
            show=lambda _: None
        )
    assert "coordinator" in str(failed.value)
    assert any("lr" in line for line in failed.value.lines), failed.value.lines


def test_a_running_coordinator_answers_in_rows(tmp_path: Path) -> None:
    settings = {"method.name": "synthetic", "method.config": {"parameters": 100}, "run.clients": ["a", "b"],
                "run.rounds": 2, "run.when_done": "serve", "round.cohort_size": 2}  # fmt: skip
    with Federation(tmp_path, **settings) as federation:
        assert federation.pki is not None
        federation.start_coordinator()
        federation.start_worker("one", ["a", "b"])
        federation.until(lambda: federation.status().version.number == 2, "both rounds are committed")
        coordinator = ssd.connect(federation.address, pki=federation.pki.folder)
        assert coordinator.status()["version"] == 2
        assert [row["round"] for row in coordinator.rounds() if row["outcome"] == "committed"] == [2, 1]
        clients = coordinator.clients()
        assert sorted(row["client"] for row in clients) == ["a", "b"]
        assert "<th>client</th>" in clients._repr_html_()
        assert coordinator.evaluations() == []
        with pytest.raises(ssd.CoordinatorRefused, match="ca.pem"):
            ssd.connect(federation.address, pki=tmp_path / "absent")
        with pytest.raises(ssd.CoordinatorRefused):
            ssd.connect(federation.address, insecure=True)
        pki = federation.pki.folder
    with pytest.raises(ssd.CoordinatorRefused):
        ssd.connect(federation.address, pki=pki)
