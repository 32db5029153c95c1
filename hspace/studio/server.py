"""The studio's local server: a page, its requests, and streams of images; nothing here knows diffusion.

It answers only on this machine, under its own name, to requests with the token. Each tab has one stream, and a newer
request ends the older one at its next step.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hspace.studio.answers import ANSWERS, MAX_JSON, answer_state, frames_of, text_of
from hspace.studio.session import Session
from hspace.studio.shelf import Shelf
from hspace.types import InputError, one_line

log: logging.Logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
ASSETS = {"/studio.js": "text/javascript", "/studio.css": "text/css"}
MAX_UPLOAD = 20 * 2**20
MAX_TABS = 32
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Doorkeeper:
    """Lets in only requests for this host, from this page, with the token; adds the headers of every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str) -> None:
        self.app: ASGIApp = app
        self.hosts: frozenset[str] = hosts
        self.token: str = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403 or passes the request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        refused = self._refused(Request(scope))
        answer = self.app if refused is None else JSONResponse({"error": refused}, 403)
        await answer(scope, receive, send_with_headers)

    def _refused(self, request: Request) -> str | None:
        """The reason why the request is refused, or None."""
        origin = request.headers.get("origin")
        if request.headers.get("host") not in self.hosts:
            return "this page has another address"
        if origin is not None and origin.removeprefix("http://") not in self.hosts:
            return "another page asked"
        if request.url.path in ASSETS:
            return None
        given = request.headers.get("x-token") or request.query_params.get("token") or ""
        right = secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())
        return None if right else "open the address that the command printed: it holds the token"


FAILURES = (InputError, OSError, RuntimeError)
"""What the page is told in one line: mistakes, a full disk, a device without memory."""


class Studio:
    """The routes of a shelf of models; every request says by a number on which of them it works.

    Attributes:
        shelf: The models.
        alive: Number of streams that are being made.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf: Shelf = shelf
        self.alive: int = 0
        self._work, self._latest = asyncio.Lock(), dict[str, int]()

    def app(self, hosts: frozenset[str], token: str) -> ASGIApp:
        """The application, behind its doorkeeper."""
        routes = [Route("/", self._page), *(Route(path, self._asset) for path in ASSETS)]
        routes += [Route(f"/api/{name}", answer) for name, answer in (("models", self._models), ("alive", self._alive))]
        routes += [Route("/api/state", _answering(self, answer_state))]
        routes += [
            Route(f"/api/{name}", _answering(self, handle), methods=["POST"]) for name, handle in ANSWERS.items()
        ]
        routes += [Route("/api/upload", self._upload, methods=["POST"])]
        routes += [Route(f"/api/{name}", self._stream, methods=["POST"]) for name in ("strip", "exact")]
        return Doorkeeper(Starlette(routes=routes), hosts, token)

    async def _page(self, request: Request) -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html")

    async def _asset(self, request: Request) -> Response:
        path = request.url.path
        return Response((PAGE / path[1:]).read_bytes(), media_type=ASSETS[path])

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"models": self.shelf.names})

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"alive": self.alive})

    async def working(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Runs what needs the network, one thing at a time, beside the loop that answers."""
        async with self._work:
            return await run_in_threadpool(action, *arguments)

    async def _upload(self, request: Request) -> Response:
        try:
            data = await _body(request, MAX_UPLOAD, "a photograph")
            label, number = unquote(request.headers.get("x-name", "")), _model(request)
            name = await self.working(lambda: self.shelf.session(number).add_upload(data, label))
            return JSONResponse({"source": name})
        except FAILURES as error:
            return _refusal(error)

    async def _stream(self, request: Request) -> Response:
        try:
            body, number = await _json(request), _model(request)
            tab, kind = text_of(body, "tab"), request.url.path.rpartition("/")[2]
            frames = await self.working(lambda: frames_of(self.shelf.session(number), kind, body))
        except FAILURES as error:
            return _refusal(error)
        ticket = self._ticket(tab)
        return StreamingResponse(self._lines(tab, ticket, frames), media_type="application/x-ndjson")

    async def _lines(self, tab: str, ticket: int, frames: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
        """One JSON text a line, until the end or until the tab asks for something newer."""
        self.alive += 1
        try:
            while (frame := await self.working(self._frame, tab, ticket, frames)) is not None:
                yield json.dumps(frame, allow_nan=False) + "\n"
                if "cancelled" in frame:
                    return
        except FAILURES as error:
            yield json.dumps({"error": one_line(error)}) + "\n"
        finally:
            self.alive -= 1

    def _frame(self, tab: str, ticket: int, frames: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
        """The next frame, or that the tab wants something newer, which may be so since this was asked for."""
        return next(frames, None) if self._latest.get(tab) == ticket else {"cancelled": True}

    def _ticket(self, tab: str) -> int:
        """Makes this the tab's only stream; if there are too many tabs, the oldest is forgotten."""
        ticket = self._latest.pop(tab, 0) + 1
        self._latest[tab] = ticket
        while len(self._latest) > MAX_TABS:
            del self._latest[next(iter(self._latest))]
        return ticket


def _answering(studio: Studio, handle: Callable[[Session, dict[str, Any]], Any]) -> Callable[[Request], Any]:
    """A route that reads JSON where something is posted, works, and answers JSON."""

    async def answer(request: Request) -> Response:
        try:
            body = await _json(request) if request.method == "POST" else {}
            number = _model(request)
            return JSONResponse(await studio.working(lambda: handle(studio.shelf.session(number), body)))
        except FAILURES as error:
            return _refusal(error)

    return answer


def _model(request: Request) -> int:
    """The number of the model that a request works on; the first one if it names none."""
    number = request.query_params.get("model", "0")
    if not (number.isascii() and number.isdecimal() and len(number) < 4):
        raise InputError("model must be the number of a model on the page")
    return int(number)


def _refusal(error: Exception) -> Response:
    return JSONResponse({"error": one_line(error)}, 400)


async def _json(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        InputError: If it is too large or no JSON object.
    """
    try:
        value = json.loads(await _body(request, MAX_JSON, "a request"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("a request is a JSON object") from None
    if not isinstance(value, dict):
        raise InputError(f"a request is a JSON object, got a {type(value).__name__}")
    return value


async def _body(request: Request, most: int, what: str) -> bytes:
    """The request's bytes, counted as they come: a stated length proves nothing."""
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > most:
                raise InputError(f"{what} has at most {most // 2**20} MB")
    except ClientDisconnect:
        raise InputError(f"{what} broke off") from None
    return bytes(parts)


def _refuse_constant(text: str) -> float:
    raise InputError(f"{text} is not a number that JSON has")
