"""The status page of large federations, and in the hands of pages and requests that are not ours."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.core import events
from coordinator.core.round import step
from coordinator.inspection.cohort_progress import Part, cohort_counts, part
from coordinator.inspection.curves import MOST_POINTS, curves, thinned
from coordinator.parts import Coordinator
from coordinator.ports.figures import Figures
from coordinator.runtime.clock import SystemClock
from coordinator.web import overview, people
from coordinator.web.pages import load
from coordinator.web.people import Page
from coordinator.workers.sessions import Session
from operations.status_site import TOKEN, Site, play
from rounds.driver_harness import driver
from ssd_wire.messages import Capabilities


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN + "\n")
    return path


class TestLargeFederations:
    def test_counting_a_cohort_is_counting_its_clients(self, tmp_path: Path) -> None:
        names = tuple(f"c{index:02d}" for index in range(30))
        subject = driver(tmp_path, clients=names)
        hosts = dict.fromkeys(names[:24], "w")
        state, _ = step(replace(subject.machine.state, hosts=hosts), events.Tick(now=0.0))
        attempt = state.attempt
        assert attempt is not None
        failures = {"c03": 1, "c08": 2, "c09": 0, "c29": 1, "stranger": 1}
        attempt = replace(attempt, accepted=frozenset(names[:7]), failures=failures)
        subject.machine._state = replace(state, attempt=attempt)
        subject.reports.recent.opened(1, 1)
        for client, done in (
            ("c03", 5),
            ("c08", 5),
            ("c10", 5),
            ("c11", 9),
            ("c12", 9),
            ("c25", 9),
            ("stranger", 9),
        ):
            subject.reports.recent.progressed(1, 1, client, done, 9)
        one_by_one = Counter(
            part(subject.machine.state, subject.reports.recent, attempt, client).value
            for client in attempt.cohort
        )
        assert cohort_counts(subject.machine.state, subject.reports.recent) == {
            each.value: one_by_one[each.value] for each in Part
        }
        assert min(cohort_counts(subject.machine.state, subject.reports.recent).values()) >= 1

    def test_a_thousand_workers_and_ten_thousand_clients_are_a_few_pages(self, tmp_path: Path) -> None:
        names = tuple(f"client-{index:05d}" for index in range(10_000))
        hosts = {client: f"worker-{index // 10:04d}" for index, client in enumerate(names)}
        subject = driver(tmp_path, clients=names)
        for worker in sorted(set(hosts.values())):
            own = frozenset(client for client in names[int(worker[-4:]) * 10 :][:10])
            subject.sessions.add(
                Session(
                    token=worker,
                    worker=worker,
                    instance="0" * 32,
                    clients=own,
                    capabilities=Capabilities(),
                    last_seen=0.0,
                )
            )
        subject.machine._state, _ = step(replace(subject.machine.state, hosts=hosts), events.Tick(now=0.0))
        newest = subject.catalogue.newest
        for number in range(1, 2001):
            subject.catalogue.add(
                replace(newest, number=number, figures=Figures(losses={"loss": 1.0 / number}))
            )
        now = SystemClock()
        status = overview.status(subject.reports, now, "build", names=True)
        assert status["cohort"]["invited"] == 10_000
        assert status["population"]["workers"] == 1000
        for found, most in [
            (status, 4 << 10),
            (people.cohort(subject.reports, Page(limit=10**6)), 128 << 10),
            (people.workers(subject.reports, now, Page()), 32 << 10),
            (people.clients(subject.reports, now, Page()), 32 << 10),
            (overview.versions(subject.reports, limit=50), 32 << 10),
            (curves(subject.catalogue.records.values(), {}), 32 << 10),
        ]:
            assert len(json.dumps(found)) < most
        thin = [value for _, value in curves(subject.catalogue.records.values(), {})["training"]["loss"]]
        assert (max(thin), min(thin), len(thin)) == (1.0, 1 / 2000, MOST_POINTS)

    def test_thinning_keeps_ends_and_extremes(self) -> None:
        points = [(at, 0.0) for at in range(10_000)]
        points[5003] = (5003, 9.0)
        points[5004] = (5004, -9.0)
        thin = thinned(points, 50)
        assert len(thin) <= 50
        assert {points[0], points[-1], points[5003], points[5004]} <= set(thin)
        assert thin == sorted(thin)
        assert thinned(points[:50], 50) == points[:50]


class TestFraming:
    def test_every_answer_tells_browsers_what_they_may_not_do(self, tmp_path: Path, token: Path) -> None:
        asked = [("GET", "/"), ("GET", "/static/main.js"), ("GET", "/static/none.js"), ("GET", "/api/v1/status"),
                 ("GET", "/api/v1/none"), ("POST", "/api/v1/pause"), ("GET", "/metrics"), ("PUT", "/")]  # fmt: skip

        async def scene(_: Coordinator, site: Site) -> None:
            for method, path in asked:
                _, headers, _ = await site.ask(path, method)
                policy = dict(each.split(" ", 1) for each in headers["Content-Security-Policy"].split("; "))
                assert policy["default-src"] == policy["frame-ancestors"] == "'none'", path
                assert policy["script-src"] == policy["style-src"] == "'self'"
                assert "unsafe" not in headers["Content-Security-Policy"]
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Referrer-Policy"] == "no-referrer"
                kept = "no-cache" if path in ("/", "/static/main.js") and method == "GET" else "no-store"
                assert headers["Cache-Control"] == kept, path
                assert "Set-Cookie" not in headers

        play(tmp_path, scene, token)

    def test_the_pages_files_have_types_and_tags(self, tmp_path: Path) -> None:
        async def scene(_: Coordinator, site: Site) -> None:
            for name, page in load().items():
                status, headers, body = await site.ask(f"/static/{name}")
                assert (status, body) == (200, page.content)
                assert headers["Content-Type"].split(";")[0] == page.content_type
                assert (await site.ask(f"/static/{name}", If_None_Match=headers["ETag"]))[0] == 304
            assert (await site.ask("/"))[2] == load()["index.html"].content

        play(tmp_path, scene)

    def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline(self) -> None:
        pages = load()
        text = {name: page.content.decode() for name, page in pages.items()}
        assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|<style|\son[a-z]+=", text["index.html"])
        named = set(re.findall(r'(?:src|href)="static/([^"]+)"', text["index.html"]))
        for name, content in text.items():
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", content), name
            for unsafe in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Storage",
                "cookie =",
            ):
                assert unsafe not in content, (name, unsafe)
            named |= {f"{part}.js" for part in re.findall(r'from "\./(\w+)\.js"', content)}
        assert named | {"index.html"} == set(pages)

    def test_other_paths_and_methods_are_refused_whatever_they_are(self, tmp_path: Path, token: Path) -> None:
        """Nothing a stranger asks for is a server error, and nothing but reading is let through."""
        choose = random.Random(7)
        known = ["/", "/static/main.js", "/api/v1/status", "/api/v1/clients", "/api/v1/pause", "/api/v1/versions/0/model",
                 "/metrics", "/livez"]  # fmt: skip
        odd = ["..", "%2e%2e", "%00", "%ff", "//", "\\", "static", "api", "v1", "?offset=-1", "?limit=x", "?limit=" + "9" * 40,
               "?find=" + "x" * 500, "?find=%00%ff", "?state=%F0%9F%98%80", "#", ";", "index.html%00.js", "etc/passwd"]  # fmt: skip
        methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]

        async def scene(subject: Coordinator, site: Site) -> None:
            host, _, port = site.url.removeprefix("http://").partition(":")
            for _ in range(150):
                path = choose.choice(known) + "/".join(choose.choices(odd, k=choose.randrange(3)))
                method = choose.choice(methods)
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1"))
                answer = await reader.read()
                writer.close()
                status = int(answer.split(b" ", 2)[1])
                assert status in (200, 400, 403, 404, 405), (method, path, answer[:200])
                assert status != 200 or method in ("GET", "HEAD"), (method, path)
                assert b"Traceback" not in answer
            assert not subject.machine.state.paused

        play(tmp_path, scene, token)
