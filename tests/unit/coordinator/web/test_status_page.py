"""The status page's JSON, headers and access, over real sockets, of a driver in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import TokenUnusable
from coordinator.parts import Coordinator
from coordinator.ports.figures import Figures
from coordinator.runtime.clock import SystemClock
from coordinator.web.access import Access, read_token
from coordinator.web.api import PIECE_BYTES
from operations.status_site import TOKEN, Site, play
from rounds.driver_harness import settle
from ssd.export.header import check_header
from ssd_wire.messages import Hello

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
