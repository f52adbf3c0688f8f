"""docs/metrics.md from the code: `python docs/tools/metrics_page.py > docs/metrics.md` (or `make docs`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from coordinator.telemetry.metrics import CoordinatorMetrics
from worker.telemetry.metrics import Metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
HEAD = """\
# Metrics

This page is made from the code by `make docs`. Each daemon serves `/metrics` on its own HTTP port
(`[coordinator] http_listen`, `[worker] http_listen`), by default on the loopback interface only. Units are seconds, bytes and Unix time.
No label ever names a client, a worker or a round. Scrape configuration, recording rules and alerts stand in
[deploy/prometheus](../deploy/prometheus), dashboards in [deploy/grafana](../deploy/grafana).
"""
Row = tuple[str, str, str, str]


def rows(registry: CollectorRegistry) -> Iterator[Row]:
    """Name as one queries it, kind, labels, text of every metric, in the order of their names."""
    collectors = list(dict.fromkeys(registry._collector_to_names))  # there is no public way to the labels
    labels = {
        name: getattr(each, "_labelnames", ())
        for each in collectors
        for name in registry._collector_to_names[each]
    }
    for family in sorted(registry.collect(), key=lambda each: each.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield name, family.type, ", ".join(labels.get(family.name, ())), family.documentation


def table(found: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in found]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    coordinator, worker = CoordinatorMetrics("b").registry, Metrics("b").registry
    return f"{HEAD}\n## Coordinator\n\n{table(rows(coordinator))}\n## Worker\n\n{table(rows(worker))}"


def names() -> frozenset[str]:
    """Every name one can query: histograms have three."""
    found = set()
    for registry in (CoordinatorMetrics("b").registry, Metrics("b").registry):
        for name, kind, _, _ in rows(registry):
            found |= (
                {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
            )
    return frozenset(found)


if __name__ == "__main__":
    print(page(), end="")
