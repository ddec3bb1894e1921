"""The server's ASGI application: routes, limits, headers and error answers put together."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pidml.errors import DiskFull
from pidml.server.grid import Grid
from pidml.server.limits import BodyLimit
from pidml.server.machine_api import MachineApi
from pidml.server.settings import ServerSettings
from pidml.server.store import ServerStore

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


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


async def _disk_full(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"the server's disk is full: {type(error).__name__}", 507)


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
    routes = MachineApi(store, settings).routes()
    if settings.grid_dir is not None:
        routes += Grid(settings.grid_dir, store.database).routes()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        store.close()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(SecurityHeaders), Middleware(BodyLimit, limit=settings.max_body_bytes)],
        exception_handlers={
            HTTPException: _refused,
            DiskFull: _disk_full,
            sqlite3.OperationalError: _database_busy,
        },
    )
    app.state.store = store
    return app
