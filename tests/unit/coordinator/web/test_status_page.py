"""The status page's JSON, headers and access, over real sockets, of a driver in memory."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.core import events
from coordinator.core.round import step
from coordinator.errors import TokenUnusable
from coordinator.inspection.cohort_progress import Part, cohort_counts, part
from coordinator.inspection.curves import MOST_POINTS, curves, thinned
from coordinator.parts import Coordinator
from coordinator.ports.figures import Figures
from coordinator.runtime.clock import SystemClock
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.web import overview, people
from coordinator.web.access import Access, read_token
from coordinator.web.api import PIECE_BYTES, Api
from coordinator.web.http import HttpServer, create_app
from coordinator.web.pages import add_pages, load
from coordinator.web.people import Page
from coordinator.workers.sessions import Session
from rounds.driver_harness import driver, settle, simulate
from ssd.daemon.address import Address
from ssd.export.header import check_header
from ssd_wire.messages import Capabilities, Hello

TOKEN = "operator-" * 5
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = "<img src=x onerror=alert(1)>\"'`&\u202e\x00"
STATE = {"evaluation.every": 0}


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN + "\n")
    return path


def clock() -> Callable[[], float]:
    return lambda: 0.0


class Site:
    """A served page, and ways to ask it."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self._client = client

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._client.request(method, self.url + path, headers=names) as reply:
            return reply.status, reply.headers, await reply.read()

    async def json(self, path: str, **headers: str) -> Any:
        status, _, body = await self.ask(f"/api/v1/{path}", **headers)
        assert status == 200, body
        return json.loads(body)


@asynccontextmanager
async def served(subject: Coordinator, token_file: Path | None = None) -> AsyncIterator[Site]:
    access = Access(token_file, SystemClock().monotonic)
    api = Api(subject.reports, subject.driver, SystemClock(), access, "build")
    server = HttpServer(create_app(CoordinatorMetrics().render, list, add_pages, api.add_to))
    address = await server.start(Address(host="127.0.0.1"))
    try:
        async with aiohttp.ClientSession() as client:
            yield Site(f"http://{address}", client)
    finally:
        await server.stop()


def play(
    tmp_path: Path,
    scene: Callable[[Coordinator, Site], Awaitable[None]],
    token_file: Path | None = None,
    **changes: Any,
) -> None:
    async def within(subject: Coordinator) -> None:
        async with served(subject, token_file) as site:
            await scene(subject, site)

    simulate(within, lambda: driver(tmp_path, **changes))


def hello(worker: str, *clients: str) -> Hello:
    return Hello(worker=worker, instance=f"{sum(worker.encode()):032x}", clients=dict.fromkeys(clients, 0))


async def attach(subject: Coordinator, worker: str, *clients: str) -> Any:
    return await subject.attendance.attach(hello(worker, *clients))


async def everything(site: Site, **headers: str) -> dict[str, Any]:
    """All there is to read."""
    names = ("status", "curves", "versions", "rounds", "cohort", "workers", "clients")
    return {name: (await site.ask(f"/api/v1/{name}", **headers))[2].decode() for name in names}


class TestReading:
    def test_a_round_is_followed_from_invitation_to_failure(self, tmp_path: Path) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            before = await site.json("status")
            assert before["phase"]["name"] == "waiting"
            assert before["phase"]["waiting_for"]
            assert sum(before["cohort"].values()) == 0
            assert (await site.json("cohort"))["rows"] == []

            session = await attach(subject, "w1", "a", "b")
            during = await site.json("status")
            assert during["phase"] | {"opened_at": 0} == {
                "name": "training", "paused": False, "draining": False, "awaited": 1, "goal": 3, "round": 1,
                "attempt": 1, "opened_at": 0, "deadline_at": None,
                "waiting_for": "round 1: not connected: c",
            }  # fmt: skip
            assert during["cohort"] == {
                "away": 1, "invited": 2, "training": 0, "trained": 0, "uploaded": 0, "failed": 0,
            }  # fmt: skip
            assert during["population"] == {"registered": 3, "connected": 2, "revoked": 0, "workers": 1}

            await subject.attendance.progressed(session, 1, 1, "a", 3, 10)
            await subject.attendance.progressed(session, 1, 1, "b", 10, 10)
            await subject.attendance.progressed(session, 1, 1, "c", 10, 10)  # not this worker's
            await subject.attendance.progressed(session, 7, 1, "a", 10, 10)  # of another round
            await subject.attendance.progressed(session, 1, 1, "a", 11, 10)
            rows = (await site.json("cohort"))["rows"]
            assert [(row["client"], row["worker"], row["part"], row["steps"]) for row in rows] == [
                ("a", "w1", "training", [3, 10]),
                ("b", "w1", "trained", [10, 10]),
                ("c", "", "away", None),
            ]
            await subject.attendance.client_failed(session, 1, 1, "a", HOSTILE)
            (failed, *_) = (await site.json("cohort"))["rows"]
            assert (failed["part"], failed["failures"], failed["reason"]) == ("failed", 1, HOSTILE)
            assert (await site.json("status"))["cohort"]["failed"] == 1

        play(tmp_path, scene, clients=("a", "b", "c"))

    def test_an_accepted_client_has_uploaded(self, tmp_path: Path) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            await attach(subject, "w1", "a", "b")
            attempt = subject.machine.state.attempt
            assert attempt is not None
            subject.machine._state = replace(
                subject.machine.state, attempt=replace(attempt, accepted=frozenset("b"))
            )
            assert [row["part"] for row in (await site.json("cohort"))["rows"]] == ["invited", "uploaded"]

        play(tmp_path, scene)

    def test_workers_that_left_and_why_are_told_of(self, tmp_path: Path) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            now = SystemClock().wall()
            gone = await attach(subject, "w1", "a")
            await attach(subject, "w2", "b")
            subject.attendance.detach(gone)
            await settle()
            first, second = (await site.json("workers"))["rows"]
            assert (first["worker"], first["connected"], first["left"]) == ("w1", False, "went_away")
            assert (second["worker"], second["connected"], second["clients"]) == ("w2", True, 1)
            assert all(abs(row["last_contact"] - now) < 60 for row in (first, second))
            away, here = (await site.json("clients"))["rows"]
            assert (away["client"], away["state"], away["worker"]) == ("a", "away", "w1")
            assert abs(away["last_contact"] - now) < 60
            assert (here["client"], here["state"], here["worker"]) == ("b", "connected", "w2")
            await attach(subject, "w1", "a")
            assert [row["connected"] for row in (await site.json("workers"))["rows"]] == [True, True]

        play(tmp_path, scene)

    def test_lists_come_in_pages_and_can_be_searched(self, tmp_path: Path) -> None:
        names = tuple(f"client-{index:03d}" for index in range(250))

        async def scene(subject: Coordinator, site: Site) -> None:
            await attach(subject, "w1", *names[:150])
            first = await site.json("clients")
            assert (first["total"], first["offset"], len(first["rows"])) == (250, 0, 100)
            last = await site.json("clients?offset=200&limit=100")
            assert [row["client"] for row in last["rows"]] == list(names[200:])
            assert (await site.json("clients?offset=9999"))["rows"] == []
            assert (await site.json("clients?find=CLIENT-01"))["total"] == 10
            assert (await site.json("clients?state=away"))["total"] == 100
            assert (await site.json("clients?state=connected&find=149"))["total"] == 1
            await subject.ownership.revoke_client(names[0])
            assert [row["client"] for row in (await site.json("clients?state=revoked"))["rows"]] == [names[0]]

        play(tmp_path, scene, clients=names)

    def test_what_has_not_changed_is_not_sent_again(self, tmp_path: Path) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            for name in ("clients", "versions", "curves", "rounds"):
                _, headers, body = await site.ask(f"/api/v1/{name}")
                tag = headers["ETag"]
                assert body
                again = await site.ask(f"/api/v1/{name}", If_None_Match=f'"x", {tag}')
                assert (again[0], again[1]["ETag"], again[2]) == (304, tag, b"")
            _, headers, _ = await site.ask("/api/v1/clients")
            await attach(subject, "w1", "a")
            assert (await site.ask("/api/v1/clients", If_None_Match=headers["ETag"]))[0] == 200

        play(tmp_path, scene)

    def test_values_that_are_no_numbers_do_not_break_the_json(self, tmp_path: Path) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            newest = subject.catalogue.newest
            odd = {"loss": float("nan"), "x": float("inf"), HOSTILE: 1.0}
            subject.catalogue.add(replace(newest, number=1, figures=Figures(losses=odd)))
            assert (await site.json("status"))["statistics"] == {HOSTILE: 1.0}
            assert (await site.json("curves"))["training"] == {HOSTILE: [[1, 1.0]]}

        play(tmp_path, scene)


class TestNames:
    """Who sees them: `coordinator.web.access`."""

    @staticmethod
    async def sees(site: Site, **headers: str) -> bool:
        found = await everything(site, **headers)
        text = "".join(found.values())
        named = [name for name in ("worker-one", "client-a", "client-b") if name in text]
        if named:
            assert json.loads(found["status"])["reader"]["names"]
            return True
        assert not json.loads(found["status"])["reader"]["names"]
        for name in ("cohort", "workers", "clients"):
            assert "names of workers and clients" in json.loads(found[name])["error"]
        return False

    @pytest.mark.parametrize(
        ("headers", "names"),
        [
            ({}, True),
            ({"Host": "localhost:9464"}, True),
            ({"Host": "[::1]:9464"}, True),
            ({"Host": "127.0.0.2"}, True),
            ({"Host": "federation.example.org"}, False),
            ({"Host": "localhost.example.org"}, False),
            ({"Host": "127.0.0.1.example.org"}, False),
            ({"Host": "[::1].example.org"}, False),
            ({"Host": "0x7f000001"}, False),
            ({"X-Forwarded-For": "127.0.0.1"}, False),
            ({"Forwarded": "for=127.0.0.1"}, False),
            ({"Via": "1.1 proxy"}, False),
        ],
    )
    def test_without_a_token_file_they_are_for_this_machine(
        self, tmp_path: Path, headers: dict[str, str], names: bool
    ) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            session = await attach(subject, "worker-one", "client-a")
            await subject.attendance.client_failed(session, 1, 1, "client-a", "raise")
            assert await self.sees(site, **headers) is names

        play(tmp_path, scene, clients=("client-a", "client-b"))

    def test_with_a_token_file_they_take_the_token(self, tmp_path: Path, token: Path) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            session = await attach(subject, "worker-one", "client-a")
            await subject.attendance.client_failed(session, 1, 1, "client-a", "raise")
            assert not await self.sees(site)
            assert await self.sees(site, **BEARER)

        play(tmp_path, scene, token, clients=("client-a", "client-b"))

    def test_a_halted_runs_reason_names_a_client_and_is_for_those_who_see_names(
        self, tmp_path: Path, token: Path
    ) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            session = await attach(subject, "worker-one", "client-a", "client-b")
            await subject.attendance.client_failed(session, 1, 1, "client-a", "raise")
            assert (await site.json("status"))["phase"]["name"] == "halted"
            assert not await self.sees(site)
            status = await site.json("status", **BEARER)
            assert "client client-a failed" in status["phase"]["waiting_for"]

        changes = {"round": {"max_client_failures": 1}}
        play(tmp_path, scene, token, clients=("client-a", "client-b"), changes=changes)


class TestToken:
    @pytest.mark.parametrize(
        "shown",
        [
            "", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"bearer{TOKEN}", f"Basic {TOKEN}",
            f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN} {TOKEN}", f"Bearer \u00e9{TOKEN}",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("exists", [True, False])
    def test_what_is_not_the_token_is_refused_everywhere(
        self, tmp_path: Path, token: Path, shown: str, exists: bool
    ) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            for method, path in [("GET", "status"), ("GET", "clients"), ("POST", "pause")]:
                status, headers, body = await site.ask(f"/api/v1/{path}", method, Authorization=shown)
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
                assert json.loads(body) == {"error": "that is not the operator's token"}
            assert not subject.machine.state.paused

        play(tmp_path, scene, token if exists else None)

    def test_two_credentials_are_none(self, tmp_path: Path, token: Path) -> None:
        async def scene(_: Coordinator, site: Site) -> None:
            host, _, port = site.url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            shown = f"Authorization: Bearer {TOKEN}\r\n"
            writer.write(f"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n{shown}{shown}\r\n".encode())
            assert b" 4" in (await reader.read()).split(b"\r\n")[0]
            writer.close()

        play(tmp_path, scene, token)

    def test_the_operator_pauses_and_resumes_and_the_log_says_so(
        self, tmp_path: Path, token: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            with caplog.at_level("WARNING"):
                for action, paused in (("pause", True), ("resume", False)):
                    status, _, body = await site.ask(f"/api/v1/{action}", "POST", **BEARER)
                    assert (status, json.loads(body)) == (200, {"paused": paused})
                    assert subject.machine.state.paused is paused
            audited = [record for record in caplog.records if record.msg == "audit"]
            assert [record.ssd_fields["action"] for record in audited] == ["Pause", "Resume"]
            assert TOKEN not in caplog.text

        play(tmp_path, scene, token)

    @pytest.mark.parametrize("exists", [True, False])
    def test_nobody_else_changes_anything_or_takes_a_model(
        self, tmp_path: Path, token: Path, exists: bool
    ) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            asked = [
                ("POST", "pause"),
                ("POST", "resume"),
                ("GET", "versions/0/model"),
                ("GET", "versions/9/model"),
            ]
            for method, path in asked:
                # As another site's form would: with a browser's cookies, without the header.
                status, _, body = await site.ask(f"/api/v1/{path}", method, Cookie=f"token={TOKEN}")
                assert status == 403, path
                said = json.loads(body)["error"]
                assert "token" in said
                assert ("http_token_file" in said) is not exists
            assert not subject.machine.state.paused

        play(tmp_path, scene, token if exists else None)

    def test_no_other_site_is_let_in(self, tmp_path: Path, token: Path) -> None:
        """A browser asks first whether another site may send the header; nobody says that it may."""

        async def scene(_: Coordinator, site: Site) -> None:
            status, headers, _ = await site.ask(
                "/api/v1/pause", "OPTIONS", Origin="https://evil.example",
                Access_Control_Request_Method="POST", Access_Control_Request_Headers="authorization",
            )  # fmt: skip
            assert status == 405
            assert not [name for name in headers if name.lower().startswith("access-control")]

        play(tmp_path, scene, token)

    def test_a_new_token_is_taken_up_and_a_bad_one_is_not(self, token: Path) -> None:
        access = Access(token, clock())
        token.write_text("short")
        access.reload()
        assert access._is_token(f"Bearer {TOKEN}")
        token.write_text("n" * 32)
        access.reload()
        assert access._is_token("Bearer " + "n" * 32)
        assert not access._is_token(f"Bearer {TOKEN}")

    @pytest.mark.parametrize("content", [b"", b"short", b"\n" * 40, b"a" * 20 + b" " + b"b" * 20, b"\xff" * 40,
                                         b"a" * 40 + b"\n" + b"b" * 40, b"a" * 5000])  # fmt: skip
    def test_a_file_that_holds_no_token_is_refused_with_what_to_do(self, token: Path, content: bytes) -> None:
        token.write_bytes(content)
        with pytest.raises(TokenUnusable, match="umask 077"):
            read_token(token)

    def test_a_file_that_others_may_read_is_refused(self, token: Path) -> None:
        token.chmod(0o604)
        with pytest.raises(TokenUnusable, match="chmod o="):
            read_token(token)
        with pytest.raises(TokenUnusable, match="umask 077"):
            read_token(token.with_name("gone"))

    def test_guesses_do_not_fill_the_log(self, token: Path, caplog: pytest.LogCaptureFixture) -> None:
        now = 0.0
        access = Access(token, lambda: now)
        for second in range(121):
            now = float(second)
            access._say_refused()
        assert len([record for record in caplog.records if record.msg == "token_refused"]) == 3


class TestModels:
    def test_a_version_comes_as_a_safetensors_file_whole_or_in_pieces(
        self, tmp_path: Path, token: Path
    ) -> None:
        async def scene(subject: Coordinator, site: Site) -> None:
            path = "/api/v1/versions/0/model"
            status, headers, whole = await site.ask(path, **BEARER)
            assert status == 200
            assert headers["Content-Disposition"] == 'attachment; filename="run-0.safetensors"'
            file = tmp_path / "model.safetensors"
            file.write_bytes(whole)
            spec = subject.reports.facts.declaration.spec
            assert check_header(file) == {tensor.name: tensor.shape for tensor in spec.tensors}
            assert whole.endswith(
                subject.catalogue.open_blob(subject.catalogue.newest.full.digest).read(0, 1 << 20)
            )
            pieces = b""
            while len(pieces) < len(whole):
                status, headers, piece = await site.ask(
                    path, **BEARER, Range=f"bytes={len(pieces)}-{len(pieces) + 99}"
                )
                assert (status, headers["Content-Range"]) == (
                    206, f"bytes {len(pieces)}-{len(pieces) + len(piece) - 1}/{len(whole)}",
                )  # fmt: skip
                pieces += piece
            assert pieces == whole
            assert (await site.ask(path, **BEARER, Range="bytes=10-"))[2] == whole[10 : 10 + PIECE_BYTES]

        play(tmp_path, scene, token)

    @pytest.mark.parametrize(
        "header",
        ["bytes=", "bytes=-5", "bytes=5-2", "bytes=1-2,4-5", "items=0-1", "bytes=99999999-", "bytes=a-b",
         "bytes=" + "9" * 40 + "-"],
    )  # fmt: skip
    def test_other_ranges_are_refused(self, tmp_path: Path, token: Path, header: str) -> None:
        async def scene(_: Coordinator, site: Site) -> None:
            status, headers, body = await site.ask("/api/v1/versions/0/model", **BEARER, Range=header)
            assert status == 416
            assert re.fullmatch(r"bytes \*/\d+", headers["Content-Range"])
            assert "range" in json.loads(body)["error"]

        play(tmp_path, scene, token)

    @pytest.mark.parametrize("number", ["1", "-1", "0x0", "%00", "9" * 30, "..%2f..%2fetc%2fpasswd", "٣"])
    def test_what_is_no_version_is_not_found(self, tmp_path: Path, token: Path, number: str) -> None:
        async def scene(_: Coordinator, site: Site) -> None:
            status, _, body = await site.ask(f"/api/v1/versions/{number}/model", **BEARER)
            assert status == 404
            assert json.loads(body)["error"]

        play(tmp_path, scene, token)


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
