"""The metrics' page is the code's; rules, alerts and dashboards ask for nothing that is not exported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from metrics_page import PAGE, names, page

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
METRIC = re.compile(r"\bssd_(?:coordinator|worker)_[a-z0-9_]+")
RECORDED = re.compile(r"\bssd:[a-z0-9_:]+")


def test_the_page_of_metrics_is_current() -> None:
    assert PAGE.read_text() == page(), "docs/metrics.md is not what the code exports: make docs"


@pytest.mark.parametrize("file", [*RULES, *DASHBOARDS], ids=lambda path: path.name)
def test_what_is_asked_for_is_exported(file: Path) -> None:
    asked = set(METRIC.findall(file.read_text()))
    assert asked
    assert asked <= names()


def test_every_recorded_series_that_is_used_is_recorded() -> None:
    texts = {path: path.read_text() for path in (*RULES, *DASHBOARDS)}
    recorded = {name for text in texts.values() for name in re.findall(r"record: (ssd:\S+)", text)}
    used = {name for text in texts.values() for name in RECORDED.findall(text)}
    assert recorded
    assert used == recorded


def test_every_alert_says_what_to_do_and_is_tried_out() -> None:
    text = (DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text()
    alerts = text.split("- alert: ")[1:]
    tried = (DEPLOY / "prometheus" / "tests" / "alerts.yml").read_text()
    for alert in alerts:
        name = alert.split()[0]
        assert "summary: " in alert, name
        assert "action: " in alert, name
        assert f'alertname="{name}"' in tried, name


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_are_whole(file: Path) -> None:
    board = json.loads(file.read_text())
    assert board["uid"] == f"ssd-{file.stem}"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["description"], panel["title"]
        assert all(target["expr"] for target in panel["targets"]), panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
