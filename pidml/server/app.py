"""The server's ASGI application: routes, limits, headers and error answers put together."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pidml.errors import DiskFull, StoreError
from pidml.server.grid import Grid
from pidml.server.limits import BodyLimit
from pidml.server.machine_api import MachineApi
from pidml.server.pages import Pages
from pidml.server.settings import ServerSettings
from pidml.server.store import ServerStore

MACHINE_PATHS = ("/training-machines/", "/training-tasks/", "/grid/")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?", re.ASCII)
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Middleware that adds the security headers which an answer does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the answer's headers."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                for name, value in SECURITY_HEADERS.items():
                    if name.lower().encode() not in present:
                        message["headers"].append((name.lower().encode(), value.encode()))
            await send(message)

        await self.app(scope, receive, answer)


class HostCheck:
    """Middleware that answers 400 to a ``Host`` header that names no host, before anything makes an address of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", []) if name == b"host"]
        if all(_HOST.fullmatch(host) for host in hosts):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("the Host header names no host", 400)(scope, receive, send)


def _refusal_of(pages: Pages) -> Callable[[Request, Exception], Response]:
    """Return the handler of refusals: text for machines, a page for people."""

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.scope["path"].startswith(MACHINE_PATHS):
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        return pages.error_page(request, error)

    return refused


async def _cannot_write(_: Request, error: Exception) -> Response:
    full = isinstance(error, DiskFull) or getattr(error, "errno", None) in _FULL
    text = "the server's disk is full" if full else "the server cannot read or write its files"
    return PlainTextResponse(text, 507 if full else 500)


async def _database_busy(_: Request, error: Exception) -> Response:
    full = "full" in str(error)
    text = "the server's disk is full" if full else "the server's database is busy, try again"
    return PlainTextResponse(text, 507 if full else 503, {} if full else {"Retry-After": "5"})


def create_app(settings: ServerSettings) -> Starlette:
    """Return the application for ``settings``; the store is opened here and closed when the application shuts down.

    The store is ``app.state.store``.

    Raises:
        ConfigError: settings with which a server must not start.
        StoreError: the data directory cannot be used.
    """
    settings.check()
    store = ServerStore(settings.data_dir)
    grid = Grid(settings.grid_dir, store.database) if settings.grid_dir is not None else None
    pages = Pages(store, settings, grid)
    machine_routes = MachineApi(store, settings).routes()
    grid_routes = grid.routes() if grid else []
    static = Mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        store.close()

    app = Starlette(
        routes=[*machine_routes, *grid_routes, *pages.routes(), static],
        lifespan=lifespan,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(HostCheck),
            Middleware(BodyLimit, limit=settings.max_body_bytes),
        ],
        exception_handlers={
            HTTPException: _refusal_of(pages),
            StoreError: _cannot_write,
            OSError: _cannot_write,
            sqlite3.OperationalError: _database_busy,
        },
    )
    app.state.store = store
    return app
