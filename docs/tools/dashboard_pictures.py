"""The pictures in docs/dashboards.md: `PYTHONPATH=.:proto:tests/support python docs/tools/dashboard_pictures.py`.

Starts two live federations (SSD on scikit-learn's digits; one under secure aggregation) with their faults, lets a real
Prometheus scrape them, asks it for every panel of deploy/grafana/dashboards over the run, and draws what it answers.
Grafana itself is not involved: panels, titles, queries, legends and units are its files', the drawing is ours. Takes
about five minutes.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.ticker import FuncFormatter, MaxNLocator

from processes.federation import ROOT, Federation
from processes.ports import free_port
from processes.prometheus_server import Prometheus
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save

PICTURES = ROOT / "docs" / "pictures"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
CLIENTS = [f"client-{index:03d}" for index in range(10)]
RUN_SECONDS = 100.0
STEP_SECONDS = 1.0
RATE_INTERVAL = "15s"
"""What Grafana would put for $__rate_interval here: some scrapes."""
ELASTIC = {
    "run.mode": "elastic",
    "run.rounds": 100_000,
    "run.when_done": "serve",
    "run.expected_clients": 10,
}
DIGITS = {
    **ELASTIC,
    "round.cohort_size": 8,
    "round.min_updates": 4,
    "round.deadline_seconds": 120.0,
    "evaluation.every": 5,
    "method.name": "ssd",
    "method.config": {
        "image": {"size": 8, "channels": 1},
        "model": {"name": "small"},
        "views": "digits",
        "local_epochs": 1,
        "batch_size": 64,
        "lr": 0.05,
        "quality": {"features": ["h", "z"], "images": 150, "min_images": 64},
    },
}
MASKED = {
    **ELASTIC,
    "round.cohort_size": 10,
    "round.min_updates": 4,
    "round.deadline_seconds": 30.0,
    "evaluation.every": 0,
    "method.name": ROOT / "tests" / "support" / "straight.py",
    "method.config": {"parameters": 200_000, "length": 1.0, "train_seconds": 0.4},
    "secure_aggregation.level": "passive",
    "secure_aggregation.tolerated_dropout": 0.3,
    "privacy.mechanism": "distributed",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a panel."""

    name: str
    times: list[datetime]
    values: list[float]


def series(
    prometheus: Prometheus, target: dict[str, Any], instance: str, begin: float, end: float
) -> Iterator[Line]:
    """What Prometheus has for a panel's query over a time range, named as its legend says."""
    expression = target["expr"].replace("$coordinator", instance).replace("$__rate_interval", RATE_INTERVAL)
    for found in prometheus.query_range(expression, begin, end, STEP_SECONDS):
        name = target.get("legendFormat") or ""
        for label, value in found["metric"].items():
            name = name.replace("{{" + label + "}}", value)
        name = re.sub(r":? ?\{\{\w+\}\}", "", name)  # a label without a value
        points = [(float(at), float(value)) for at, value in found["values"] if math.isfinite(float(value))]
        # Where there was nothing there is a gap.
        gaps = [
            (at + STEP_SECONDS, math.nan)
            for (at, _), (after, _) in pairwise(points)
            if after - at > 2 * STEP_SECONDS
        ]
        whole = sorted(points + gaps)
        yield Line(name, [datetime.fromtimestamp(at, UTC) for at, _ in whole], [value for _, value in whole])


def shown(value: float, unit: str) -> str:
    """A number with its unit, short."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{1e6 * value:.3g} µs" if value else "0 s"
    if unit in {"bytes", "Bps"}:
        names = ("B", "KiB", "MiB", "GiB", "TiB") if unit == "bytes" else ("B/s", "kB/s", "MB/s", "GB/s")
        base = 1024.0 if unit == "bytes" else 1000.0
        power = min(int(math.log(abs(value), base)), len(names) - 1) if abs(value) >= 1 else 0
        return f"{value / base**power:.3g} {names[power]}"
    return f"{value:.4g}"


def draw(axes: Axes, panel: dict[str, Any], lines: list[Line]) -> None:
    """One panel."""
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    axes.set_title(panel["title"], fontsize=9, loc="left", fontweight="bold")
    if panel["type"] == "stat":
        axes.axis("off")
        last = lines[0].values[-1] if lines and lines[0].values else None
        text = "no data" if last is None else shown(last, unit)
        axes.text(0.5, 0.45, text, ha="center", va="center", fontsize=18, color="#2b5c9e")
        return
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for line in lines:
        axes.plot(line.times, line.values, linewidth=1.3, label=line.name or "value")
    if any(line.values for line in lines):
        axes.legend(
            fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, borderaxespad=0.3
        )
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no data: nothing of this happened", ha="center", va="center", fontsize=8,
                  transform=axes.transAxes, color="#777777")  # fmt: skip
    axes.margins(x=0)


def picture(file: Path, prometheus: Prometheus, instance: str, begin: float, end: float) -> None:
    """One dashboard, its panels where its file puts them."""
    board = json.loads(file.read_text())
    panels = board["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(12, 0.31 * rows + 0.5), dpi=80)
    figure.suptitle(board["title"], fontsize=12, x=0.02, ha="left", fontweight="bold")
    height = 1 - 0.35 / (0.31 * rows + 0.5)
    for panel in panels:
        at = panel["gridPos"]
        stat = panel["type"] == "stat"
        left, width = at["x"] / 24 + 0.06, at["w"] / 24 - (0.075 if stat else 0.155)
        bottom = height * (1 - (at["y"] + at["h"]) / rows) + height * 0.9 / rows
        axes = figure.add_axes((left, bottom, width, height * (at["h"] - 2.1) / rows))
        lines = [
            line for target in panel["targets"] for line in series(prometheus, target, instance, begin, end)
        ]
        draw(axes, panel, lines)
    figure.savefig(PICTURES / f"dashboard-{file.stem}.png")
    plt.close(figure)


def wait(seconds: float) -> None:
    """Let the federation run."""
    time.sleep(seconds)


def digits(root: Path) -> None:
    """Everything but secure aggregation: three workers, one of which dies and comes back."""
    partition = root / "partition.json"
    found = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    save(dirichlet(found.train.labels.tolist(), 10, 1.0, 5, dataset="digits"), partition)
    ports = [free_port() for _ in range(3)]
    with Federation(root, **DIGITS) as federation:
        targets = {"ssd-coordinator": federation.http_port, "ssd-worker": ports}
        with Prometheus(root, targets) as prometheus:
            federation.start_coordinator()
            configs = [
                {
                    "data.kind": "digits",
                    "data.partition": partition,
                    "worker.http_listen": f"127.0.0.1:{port}",
                }
                for port in ports
            ]
            for index, config in enumerate(configs):
                federation.start_worker(f"site-{index}", CLIENTS[index::3], config=config)
            prometheus.until(
                lambda: prometheus.query("ssd_coordinator_model_version > 2"), "rounds are committed"
            )
            begin = time.time()
            wait(RUN_SECONDS * 0.5)
            federation.workers["site-2"].kill()
            wait(RUN_SECONDS * 0.15)
            federation.start_worker("site-2", CLIENTS[2::3], config=configs[2])
            wait(RUN_SECONDS * 0.35)
            for file in sorted(DASHBOARDS.glob("*.json")):
                if file.stem != "secure-aggregation":
                    picture(file, prometheus, f"127.0.0.1:{federation.http_port}", begin, time.time())


def masked(root: Path) -> None:
    """The board of secure aggregation: five workers, one of which goes away for a while."""
    port = free_port()
    with Federation(root, **MASKED) as federation:
        targets = {"ssd-coordinator": federation.http_port, "ssd-worker": port}
        with Prometheus(root, targets) as prometheus:
            federation.start_coordinator()
            config = {
                "methods.straight": MASKED["method.name"],
                "secure_aggregation.level": "passive",
                "privacy.mechanism": "distributed",
            }
            for index in range(5):
                own = {"worker.http_listen": f"127.0.0.1:{port}"} if index == 0 else {}
                federation.start_worker(f"site-{index}", CLIENTS[index::5], config={**config, **own})
            opened = "ssd_coordinator_secure_aggregation_unmasking_seconds_count > 0"
            prometheus.until(lambda: prometheus.query(opened), "sums are opened")
            begin = time.time()
            wait(RUN_SECONDS * 0.4)
            federation.workers["site-4"].kill()
            wait(RUN_SECONDS * 0.2)
            federation.start_worker("site-4", CLIENTS[4::5], config=config)
            wait(RUN_SECONDS * 0.4)
            file = DASHBOARDS / "secure-aggregation.json"
            picture(file, prometheus, f"127.0.0.1:{federation.http_port}", begin, time.time())


def main() -> None:
    """Run both federations, and write the pictures."""
    for story in (digits, masked):
        with tempfile.TemporaryDirectory() as name:
            story(Path(name))


if __name__ == "__main__":
    main()
