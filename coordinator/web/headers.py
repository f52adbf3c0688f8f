"""What every answer of the HTTP port says to a browser: run nothing of others, guess nothing, tell nobody, keep little."""

from __future__ import annotations

from aiohttp import web

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # Text can become an element's text, never its markup.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
CONTENT_SECURITY_POLICY = "; ".join(_POLICY)
ALWAYS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KEEP_NOTHING = "no-store"
"""Whatever may hold names or depends on who asks."""


async def protect(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on an answer; one that says nothing of keeping is not kept."""
    for name, value in ALWAYS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", KEEP_NOTHING)
