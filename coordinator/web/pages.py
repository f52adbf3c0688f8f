"""The files of the status page: read once when the server is made, served by exact name, never looked up on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFile:
    """One file."""

    content: bytes
    content_type: str
    etag: str


def load() -> Mapping[str, PageFile]:
    """Every file of the page, by name."""
    found = {}
    for entry in files("coordinator.web").joinpath("static").iterdir():
        kind = _TYPES.get("." + entry.name.rpartition(".")[2])
        if kind is not None:
            content = entry.read_bytes()
            etag = hashlib.sha256(content).hexdigest()[:32]
            found[entry.name] = PageFile(content=content, content_type=kind, etag=etag)
    return found


def add_pages(app: web.Application) -> None:
    """Serve the page at / and its parts at /static/."""
    pages = load()

    async def index(request: web.Request) -> web.StreamResponse:
        return _answer(request, pages[INDEX])

    async def part(request: web.Request) -> web.StreamResponse:
        page = pages.get(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound(text="there is no such file")
        return _answer(request, page)

    app.add_routes([web.get("/", index), web.get("/static/{name}", part)])


def _answer(request: web.Request, page: PageFile) -> web.StreamResponse:
    # They hold nothing of the run. Asked for again each time, so that page and coordinator are of one version.
    headers = {"Cache-Control": "no-cache", "ETag": f'"{page.etag}"'}
    if any(tag.value in (page.etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=page.content, content_type=page.content_type, charset="utf-8", headers=headers)
