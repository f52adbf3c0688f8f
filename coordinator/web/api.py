"""The JSON behind the status page: `/api/v1/...`.

Reading is by GET and asks again with the ETag of the last answer: an answer that has not changed is a 304 without a
body. There is no stream of events: a connection of this port is for one request (`coordinator.web.http`), and whoever
keeps one open takes it from others. What changes something is a POST and takes the operator's token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from coordinator.core import events
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason, StorageFailed
from coordinator.inspection.curves import curves
from coordinator.inspection.reports import Reports
from coordinator.ports.clock import Clock
from coordinator.rounds.driver import Driver
from coordinator.web import overview, people
from coordinator.web.access import Access, Reader
from coordinator.web.model_file import ModelFile
from coordinator.web.people import MOST_PER_PAGE, Page
from coordinator.workers.ownership import log_audit
from ssd.daemon.logs import event as log_event
from ssd.digest import CHUNK_BYTES

log = logging.getLogger(__name__)

Json = Any
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MOST_VERSIONS = 1000
LONGEST_FIND = 128
PIECE_BYTES = 4 << 20
"""Largest part of a model one answer brings: a connection does not last long."""
_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
NO_NAMES = (
    "names of workers and clients are shown to whoever has the operator's token and, where there is no token, on the"
    " coordinator's own machine"
)
NO_TOKEN_FILE = "this coordinator has no token for its HTTP port: see coordinator.http_token_file"  # noqa: S105
MODEL_NEEDS_TOKEN = "the model is not public: it can tell of the images it was trained on. Show the operator's token to take it"  # noqa: S105


class Api:
    """The handlers.

    Args:
        reports: what to show.
        driver: takes what an operator wants.
        clock: for times.
        access: who may see and do what.
        build: what the coordinator calls itself.
    """

    def __init__(self, reports: Reports, driver: Driver, clock: Clock, access: Access, build: str) -> None:
        self._reports = reports
        self._driver = driver
        self._clock = clock
        self._access = access
        self._build = build
        self._curves: tuple[str, Json] = ("", None)

    def add_to(self, app: web.Application) -> None:
        """Put the routes into an application."""
        reading: dict[str, Callable[[web.Request, Reader], Awaitable[Json]]] = {
            "status": self._status,
            "curves": self._get_curves,
            "versions": self._versions,
            "rounds": self._rounds,
            "cohort": self._cohort,
            "workers": self._workers,
            "clients": self._clients,
        }
        routes = [web.get(f"/api/v1/{name}", self._read(make)) for name, make in reading.items()]
        routes += [
            web.get("/api/v1/versions/{number}/model", self._answering(self._model)),
            web.post("/api/v1/pause", self._answering(self._pause)),
            web.post("/api/v1/resume", self._answering(self._resume)),
        ]
        app.add_routes(routes)

    # ---------------------------------------------------------------------------------------------- framing

    def _read(self, make: Callable[[web.Request, Reader], Awaitable[Json]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            found = await make(request, self._access.reader(request))
            return await asyncio.to_thread(_tagged, found, request.headers.get("If-None-Match", ""))

        return self._answering(answer)

    def _answering(self, handler: Handler) -> Handler:
        """Whatever is refused is refused in JSON."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPException as refusal:
                headers = {
                    k: v for k, v in refusal.headers.items() if k in ("WWW-Authenticate", "Content-Range")
                }
                return web.json_response({"error": refusal.text}, status=refusal.status, headers=headers)
            except ClientFault as fault:
                status = 404 if fault.reason is Reason.NOT_FOUND else 503
                return web.json_response({"error": fault.detail}, status=status)
            except BlobMissing:
                return web.json_response({"error": "the model of that version is not kept"}, status=404)
            except (BlobCorrupt, StorageFailed) as error:
                log_event(log, logging.ERROR, error.code, detail=str(error))
                return web.json_response({"error": "it cannot be read; the log says more"}, status=503)

        return answer

    # ---------------------------------------------------------------------------------------------- reading

    async def _status(self, _: web.Request, reader: Reader) -> Json:
        return {
            **overview.status(self._reports, self._clock, self._build, names=reader.sees_names),
            "reader": {
                "names": reader.sees_names,
                "operator": reader is Reader.OPERATOR,
                "token_exists": self._access.has_token,
            },
        }

    async def _get_curves(self, _: web.Request, reader: Reader) -> Json:
        revision = overview.curves_revision(self._reports)
        if self._curves[0] != revision:
            records = tuple(self._reports.catalogue.records.values())
            measured = dict(self._reports.evaluations)
            self._curves = (revision, await asyncio.to_thread(curves, records, measured))
        return self._curves[1]

    async def _versions(self, request: web.Request, _: Reader) -> Json:
        limit = _count(request, "limit", 50, MOST_VERSIONS)
        return await asyncio.to_thread(overview.versions, self._reports, limit=limit)

    async def _rounds(self, request: web.Request, reader: Reader) -> Json:
        limit = max(1, _count(request, "limit", 50, MOST_VERSIONS))
        return await asyncio.to_thread(overview.rounds, self._reports, limit=limit, names=reader.sees_names)

    async def _cohort(self, request: web.Request, reader: Reader) -> Json:
        _require_names(reader)
        return people.cohort(self._reports, _page(request))

    async def _workers(self, request: web.Request, reader: Reader) -> Json:
        _require_names(reader)
        return people.workers(self._reports, self._clock, _page(request))

    async def _clients(self, request: web.Request, reader: Reader) -> Json:
        _require_names(reader)
        return people.clients(self._reports, self._clock, _page(request), request.query.get("state", ""))

    # -------------------------------------------------------------------------------------------- operating

    def _require_operator(self, request: web.Request, why: str) -> None:
        if self._access.reader(request) is not Reader.OPERATOR:
            said = why if self._access.has_token else f"{why}. {NO_TOKEN_FILE}"
            raise web.HTTPForbidden(text=said)

    async def _model(self, request: web.Request) -> web.StreamResponse:
        self._require_operator(request, MODEL_NEEDS_TOKEN)
        number = request.match_info["number"]
        if not _NUMBER.fullmatch(number):
            raise web.HTTPNotFound(text="a version is a number")
        name = f"{self._reports.facts.record.run_id}-{int(number)}.safetensors"
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{re.sub("[^A-Za-z0-9._-]", "_", name)}"',
        }
        file = self._open(self._reports.catalogue.known(int(number)))
        try:
            asked = request.headers.get("Range")
            if asked is None:
                return await _whole(request, file, headers)
            begin, end = _wanted(asked, file.size)
            body = await asyncio.to_thread(file.read, begin, end - begin)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
            return web.Response(status=206, body=body, headers=headers)
        finally:
            file.close()

    def _open(self, number: int) -> ModelFile:
        record = self._reports.catalogue.record(number)
        assert record is not None  # it is known
        metadata = {
            "run": self._reports.facts.record.run_id,
            "version": str(number),
            "model_digest": record.model_digest,
        }
        return ModelFile(
            self._reports.facts.declaration.spec,
            self._reports.catalogue.open_blob(record.full.digest),
            metadata,
        )

    async def _pause(self, request: web.Request) -> web.StreamResponse:
        self._require_operator(request, "pausing a run takes the operator's token")
        await self._driver.operate(lambda now: events.PauseRequested(now=now))
        return self._done("Pause")

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        self._require_operator(request, "resuming a run takes the operator's token")
        await self._driver.operate(lambda now: events.ResumeRequested(now=now))
        return self._done("Resume")

    def _done(self, action: str) -> web.StreamResponse:
        log_audit("the token of the HTTP port", action)
        return web.json_response({"paused": self._reports.state.paused})


def _tagged(found: Json, known: str) -> web.Response:
    body = json.dumps(found, separators=(",", ":"), allow_nan=False).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if etag in (each.strip() for each in known.split(",")):
        return web.Response(status=304, headers={"ETag": etag})
    return web.Response(body=body, content_type="application/json", headers={"ETag": etag})


def _require_names(reader: Reader) -> None:
    if not reader.sees_names:
        raise web.HTTPForbidden(text=NO_NAMES)


def _count(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not _NUMBER.fullmatch(text):
        raise web.HTTPBadRequest(text=f"{name} must be a number")
    return min(int(text), most)


def _page(request: web.Request) -> Page:
    find = request.query.get("find", "")
    if len(find) > LONGEST_FIND:
        raise web.HTTPBadRequest(text=f"find has at most {LONGEST_FIND} characters")
    return Page(
        offset=_count(request, "offset", 0, 10**12),
        limit=_count(request, "limit", 100, MOST_PER_PAGE),
        find=find,
    )


async def _whole(request: web.Request, file: ModelFile, headers: dict[str, str]) -> web.StreamResponse:
    """All of the file; who is too slow for one connection asks for pieces."""
    response = web.StreamResponse(headers=headers)
    response.content_length = file.size
    await response.prepare(request)
    try:
        for offset in range(0, file.size, CHUNK_BYTES):
            await response.write(await asyncio.to_thread(file.read, offset, CHUNK_BYTES))
        await response.write_eof()
    except (BlobCorrupt, StorageFailed) as error:
        # Its beginning is on its way: that it is not whole shows in its length.
        log_event(log, logging.ERROR, error.code, detail=str(error))
        if request.transport is not None:
            request.transport.abort()
    return response


def _wanted(header: str, size: int) -> tuple[int, int]:
    """First byte and the byte after the last of what a Range asks for, at most a piece.

    Raises:
        HTTPRequestRangeNotSatisfiable: it is not one range of bytes within the file.
    """
    asked = _RANGE.fullmatch(header)
    begin = int(asked[1]) if asked else size
    last = int(asked[2]) if asked and asked[2] else size - 1
    if begin >= size or last < begin:
        raise web.HTTPRequestRangeNotSatisfiable(
            text="ask for one range of bytes within the file", headers={"Content-Range": f"bytes */{size}"}
        )
    return begin, min(last + 1, size, begin + PIECE_BYTES)
