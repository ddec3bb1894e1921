"""What a request may hold: limits on size, and readers that answer hostile content with a clear refusal."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_SECONDS = 30.0
MAX_FORM_FIELDS = 2000
MAX_ID_DIGITS = 18
BODILESS_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyLimit:
    """Middleware that answers 413 to a body larger than ``limit`` bytes.

    A body that nobody read is taken in and dropped, within bounds, before an early answer is sent: a client that is
    still sending would otherwise meet a reset connection instead of the answer, and try again for ever.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http" or scope["method"] in BODILESS_METHODS:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        body = _Body(receive, self.limit)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and b"expect" not in headers:
                await body.drain()
            await send(message)

        declared = headers.get(b"content-length", b"0")
        if len(declared) > MAX_ID_DIGITS or int(declared) > self.limit:
            await _refuse(413, f"the request is larger than {self.limit} bytes", scope, receive, answer)
            return
        await self.app(scope, body.receive, answer)


class _Body:
    """The body of one request: counted while it is read, and dropped if nobody reads it."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._taken = 0
        self._ended = False

    async def receive(self) -> Message:
        message = await self._take()
        if self._taken > self._limit:
            raise HTTPException(413, f"the request is larger than {self._limit} bytes")
        return message

    async def drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and self._taken <= 2 * self._limit:
                    await self._take()
        except TimeoutError:
            return  # the answer is sent all the same; the server then closes the connection

    async def _take(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended = True
        return message


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(text, status)(scope, receive, send)


def number_in_path(request: Request, name: str, status: int, what: str) -> int:
    """Return the path's number ``name``, or refuse with ``status`` anything but a few ASCII digits."""
    text = str(request.path_params[name])
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS):
        raise HTTPException(status, f"{what} is not a number")
    return int(text)


def media_type_of(request: Request) -> str:
    """Return the request's content type without parameters, in lower case; empty if it has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_object(request: Request, limit: int) -> dict[str, Any]:
    """Return the JSON object in a request's body, or refuse with 413 or 422."""
    if media_type_of(request) not in ("", "application/json"):
        raise HTTPException(422, "the content type is not application/json")
    try:
        value = json.loads(await limited_body(request, limit))
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is not well-formed JSON of a sensible depth") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "the body is not a JSON object")
    return value


async def form_fields(request: Request, limit: int) -> list[tuple[str, str]]:
    """Return the fields of a form sent by a page, in order, or refuse with 400, 413 or 415."""
    if media_type_of(request) != "application/x-www-form-urlencoded":
        raise HTTPException(415, "the content type is not application/x-www-form-urlencoded")
    try:
        text = (await limited_body(request, limit)).decode("ascii")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict")
    except ValueError:
        raise HTTPException(400, "the form is not well-formed") from None


async def limited_body(request: Request, limit: int) -> bytes:
    """Return a request's body, or refuse with 413 one of more than ``limit`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"the request is larger than {limit} bytes")
    return bytes(body)
