"""The status page of a large federation: what its answers weigh and cost, and what a browser makes of them.

python tests/benchmarks/bench_status_page.py [--workers 1000] [--clients 10] [--versions 1000] [--no-browser]

The coordinator's part runs in this process, over its real database, with every client in the cohort of a round under
way. While the browser looks, a tenth of the clients make a step every two seconds and every worker is heard of, as in
a real round. Processor time is this process's for an answer, and that of the browser's page for the page
(Performance.getMetrics); a wait is how long the page leaves a keystroke unanswered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "proto"), str(ROOT / "tests" / "support")]

from coordinator.core import events
from coordinator.core.round import step
from coordinator.parts import Coordinator
from coordinator.ports.figures import Figures
from coordinator.ports.records import AttemptRecord
from coordinator.runtime.clock import SystemClock
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.web.access import Access
from coordinator.web.api import Api
from coordinator.web.http import HttpServer, create_app
from coordinator.web.pages import add_pages
from coordinator.workers.sessions import Session
from processes.chromium import Browser
from rounds.driver_harness import driver
from ssd.daemon.address import Address
from ssd_wire.messages import Capabilities

PATHS = (
    "status",
    "curves",
    "versions",
    "rounds",
    "cohort?limit=1000",
    "workers?limit=100",
    "clients?limit=100",
)
REPEATS = 10
POLL_SECONDS = 2.0
BROWSER_SECONDS = 20.0
ATTEMPTS = 50
STATISTICS = ("loss", "alignment", "uniformity", "quality_z_uniformity_inter", "quality_z_effective_rank")
WAITS = """(() => {
  window.waits = [];
  let last = performance.now();
  setInterval(() => { const now = performance.now(); window.waits.push(now - last - 20); last = now; }, 20);
})()"""


class Site:
    """The page of a large run, served from a thread of its own."""

    def __init__(self, folder: Path, workers: int, each: int, versions: int) -> None:
        self.url = ""
        self._folder, self._workers, self._each, self._versions = folder, workers, each, versions
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), daemon=True
        )

    def __enter__(self) -> Site:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        store = SqliteJournal(self._folder)
        names = tuple(f"client-{number:05d}" for number in range(self._workers * self._each))
        subject = driver(self._folder, store, clients=names)  # type: ignore[arg-type]  # it only uses the port
        self._fill(subject, store, names)
        api = Api(
            subject.reports, subject.driver, SystemClock(), Access(None, SystemClock().monotonic), "bench"
        )
        server = HttpServer(create_app(CoordinatorMetrics().render, list, add_pages, api.add_to))
        self.url = f"http://{await server.start(Address(host='127.0.0.1'))}/"
        moving = asyncio.ensure_future(self._move(subject))
        self._ready.set()
        await self._stop.wait()
        moving.cancel()
        await server.stop()
        store.close()

    def _fill(self, subject: Coordinator, store: SqliteJournal, names: tuple[str, ...]) -> None:
        hosts = {}
        for number in range(self._workers):
            worker, own = f"worker-{number:04d}", names[number * self._each :][: self._each]
            hosts |= dict.fromkeys(own, worker)
            subject.sessions.add(
                Session(
                    token=worker, worker=worker, instance="0" * 32, clients=frozenset(own),
                    capabilities=Capabilities(device="cuda:0 NVIDIA H100"), last_seen=time.monotonic(),
                )
            )  # fmt: skip
        newest = subject.catalogue.newest
        for number in range(1, self._versions):
            told = {name: 1.0 / number + at for at, name in enumerate(STATISTICS)} | {
                "quality_version": number - 1.0
            }
            subject.catalogue.add(
                replace(
                    newest, number=number, figures=Figures.from_statistics(told), committed_at=time.time()
                )
            )
        for number in range(1, ATTEMPTS + 1):
            opened = AttemptRecord(
                round=1,
                attempt=number,
                base_version=0,
                base_digest=newest.model_digest,
                cohort=names,
                opened_at=1.0,
            )
            store.open_attempt(opened)
            store.abandon_attempt(1, number, "deadline", 2.0)
        subject.machine._state, _ = step(
            replace(subject.machine.state, hosts=hosts), events.Tick(now=time.monotonic())
        )

    async def _move(self, subject: Coordinator) -> None:
        attempt = subject.machine.state.attempt
        assert attempt is not None, "no round is under way"
        subject.reports.recent.opened(attempt.round, attempt.number)
        for turn in range(10**6):
            for session in subject.sessions:
                session.last_seen = time.monotonic()
            for client in attempt.cohort[turn % 10 :: 10]:
                subject.reports.recent.progressed(
                    attempt.round, attempt.number, client, min(1 + turn // 10, 100), 100
                )
            await asyncio.sleep(POLL_SECONDS)


def answers(url: str) -> None:
    """Size, time and processor time of every answer the page asks for."""
    print(f"{'answer':20}{'KiB':>8}{'ms':>8}{'cpu ms':>8}")
    for path in PATHS:
        walls, size, busy = [], 0, time.process_time()
        for _ in range(REPEATS):
            begun = time.perf_counter()
            with urllib.request.urlopen(f"{url}api/v1/{path}", timeout=60) as reply:
                size = len(reply.read())
            walls.append(1e3 * (time.perf_counter() - begun))
        busy = 1e3 * (time.process_time() - busy) / REPEATS
        print(f"{path:20}{size / 1024:8.1f}{statistics.median(walls):8.1f}{busy:8.1f}")


def browsing(url: str, folder: Path) -> None:
    """What the page does with them."""

    def metrics() -> dict[str, float]:
        return {each["name"]: each["value"] for each in browser.call("Performance.getMetrics")["metrics"]}

    with Browser(folder) as browser:
        browser.call(
            "Performance.enable", timeDomain="threadTicks"
        )  # processor time: other programs do not count
        browser.size(1200, 1000)
        begun = time.perf_counter()
        browser.open(url)
        browser.until("document.querySelectorAll('#clients-list tbody tr').length === 100")
        print(f"\nfirst picture, names and all: {1e3 * (time.perf_counter() - begun):.0f} ms")
        before, busy = metrics(), time.process_time()
        time.sleep(BROWSER_SECONDS)
        after, polls = metrics(), BROWSER_SECONDS / POLL_SECONDS
        parts = {"Task": "in all", "Script": "scripts", "Layout": "layout", "RecalcStyle": "styles"}
        spent = ", ".join(
            f"{text} {1e3 * (after[f'{part}Duration'] - before[f'{part}Duration']) / polls:.0f} ms"
            for part, text in parts.items()
        )
        print(
            f"a poll in the page: {spent}; {after['Nodes']:.0f} nodes, {after['JSHeapUsedSize'] / 2**20:.1f} MiB"
        )
        print(
            f"a poll in the coordinator: {1e3 * (time.process_time() - busy) / polls:.0f} ms of processor time"
        )
        browser.evaluate(WAITS)
        time.sleep(BROWSER_SECONDS / 2)
        waits = sorted(browser.evaluate("window.waits"))
        print(f"waits: 99 in 100 below {waits[len(waits) * 99 // 100]:.0f} ms, longest {waits[-1]:.0f} ms")
        begun = time.perf_counter()
        browser.evaluate("document.querySelector('#clients-list input[type=search]').focus()")
        browser.type("client-00777")
        browser.until("document.querySelectorAll('#clients-list tbody tr').length === 1")
        print(f"a search among the clients: {1e3 * (time.perf_counter() - begun):.0f} ms")
        assert not browser.said, browser.said


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=10, help="of each worker")
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--no-browser", action="store_true")
    wanted = parser.parse_args()
    print(f"{wanted.workers} workers, {wanted.workers * wanted.clients} clients, all in the cohort, {wanted.versions} versions, "
          f"{ATTEMPTS} attempts; {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Site(folder, wanted.workers, wanted.clients, wanted.versions) as site:
            answers(site.url)
            if not wanted.no_browser:
                browsing(site.url, folder)


if __name__ == "__main__":
    main()
