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

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hspace.studio.session import Edit, Session, read_mask, sprite
from hspace.types import InputError

log: logging.Logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
ASSETS = {"/studio.js": "text/javascript", "/studio.css": "text/css"}
MAX_JSON, MAX_UPLOAD = 4 * 2**20, 20 * 2**20
MAX_TABS = 32
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
NOTE = "Edited by hspace studio: {terms}; model {model}. It shows no real event."


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


class Studio:
    """The routes of one session.

    Attributes:
        session: Session that the page works on.
        alive: Number of streams that are being made.
    """

    def __init__(self, session: Session) -> None:
        self.session: Session = session
        self.alive: int = 0
        self._work, self._latest = asyncio.Lock(), dict[str, int]()

    def app(self, hosts: frozenset[str], token: str) -> ASGIApp:
        """The application, behind its doorkeeper."""
        posts: dict[str, Callable[[Any], Any]] = {
            "source": self._source, "find": self._find, "keep": self._keep, "save": self._save,
        }  # fmt: skip
        routes = [Route("/", self._page), *(Route(path, self._asset) for path in ASSETS)]
        routes += [Route("/api/state", self._state), Route("/api/alive", self._alive)]
        routes += [Route(f"/api/{name}", _answering(self, handle), methods=["POST"]) for name, handle in posts.items()]
        routes += [Route("/api/upload", self._upload, methods=["POST"])]
        routes += [Route(f"/api/{name}", self._stream, methods=["POST"]) for name in ("strip", "exact")]
        return Doorkeeper(Starlette(routes=routes), hosts, token)

    async def _page(self, request: Request) -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html")

    async def _asset(self, request: Request) -> Response:
        path = request.url.path
        return Response((PAGE / path[1:]).read_bytes(), media_type=ASSETS[path])

    async def _state(self, request: Request) -> Response:
        return JSONResponse(await self.working(self.session.state))

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"alive": self.alive})

    async def working(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Runs what needs the network, one thing at a time, beside the loop that answers."""
        async with self._work:
            return await run_in_threadpool(action, *arguments)

    def _source(self, body: dict[str, Any]) -> dict[str, Any]:
        source = self.session.source(_text(body, "source"))
        return {"image": sprite(source.x_0), "error": source.error, "generated": source.generated}

    def _find(self, body: dict[str, Any]) -> dict[str, Any]:
        source, edit = self.session.source(_text(body, "source")), self._edit(body)
        found = self.session.find(source, edit.mask, _whole(body, "step", 0), _whole(body, "count", 2))
        return {"sliders": [self.session.describe(number) for number in found]}

    def _keep(self, body: dict[str, Any]) -> dict[str, Any]:
        number = self.session.save_direction(self._edit(body), _text(body, "name"))
        return {"sliders": [self.session.describe(number)]}

    def _save(self, body: dict[str, Any]) -> dict[str, Any]:
        source, edit = self.session.source(_text(body, "source")), self._edit(body)
        *_, image = self.session.exact(source, edit)
        names = {self.session.sliders[i].name: s for i, s in edit.terms.items()}
        terms = ", ".join(f"{name} at {strength:g}" for name, strength in names.items()) or "nothing"
        note = NOTE.format(terms=terms, model=self.session.bench.model.model_id)
        return {"file": str(self.session.save_picture(source, edit, image, note))}

    async def _upload(self, request: Request) -> Response:
        try:
            data = await _body(request, MAX_UPLOAD, "a photograph")
            label = request.headers.get("x-name", "")
            return JSONResponse({"source": await self.working(self.session.add_upload, data, label)})
        except InputError as error:
            return _refusal(error)

    async def _stream(self, request: Request) -> Response:
        try:
            body = await _json(request)
            tab, source = _text(body, "tab"), _text(body, "source")
            frames = await self.working(self._frames, request.url.path, body, source)
        except InputError as error:
            return _refusal(error)
        ticket = self._ticket(tab)
        return StreamingResponse(self._lines(tab, ticket, frames), media_type="application/x-ndjson")

    def _frames(self, path: str, body: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
        """The frames of a stream, which are computed as they are asked for; mistakes are found before it begins."""
        source, edit = self.session.source(name), self._edit(body)
        if path == "/api/strip":
            images = self.session.strip(source, _whole(body, "slider", -1), edit.start, edit.stop)
        else:
            images = self.session.exact(source, edit)
        total, read = self.session.state()["steps"], self.session.read

        def frames() -> Iterator[dict[str, Any]]:
            image = None
            for step, image in enumerate(images, start=1):
                yield {"step": step, "steps": total, "image": sprite(image)}
            extra = read(source, image) if path == "/api/exact" and image is not None else {}
            yield {"done": True, **extra}

        return frames()

    async def _lines(self, tab: str, ticket: int, frames: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
        """One JSON text a line, until the end or until the tab asks for something newer."""
        self.alive += 1
        try:
            while (frame := await self.working(self._frame, tab, ticket, frames)) is not None:
                yield json.dumps(frame) + "\n"
                if "cancelled" in frame:
                    return
        except InputError as error:
            yield json.dumps({"error": str(error)}) + "\n"
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

    def _edit(self, body: dict[str, Any]) -> Edit:
        """The edit that a request describes.

        Raises:
            InputError: If a number, a window or the mask is wrong.
        """
        terms, steps = body.get("terms", {}), len(self.session.bench.model.process.timesteps)
        if not isinstance(terms, dict) or not all(_is_term(*term) for term in terms.items()):
            raise InputError("terms are finite strengths by the number of the slider")
        start, stop = _whole(body, "start", 0), _whole(body, "stop", steps)
        if not 0 <= start < stop <= steps:
            raise InputError(f"the edited steps must satisfy 0 <= start < stop <= {steps}, got {start} to {stop}")
        _, height, width = self.session.bench.model.image_shape
        mask = read_mask(_text(body, "mask"), height, width) if body.get("mask") else None
        return Edit({int(number): float(strength) for number, strength in terms.items()}, start, stop, mask)


def _answering(studio: Studio, handle: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Any]:
    """A route that reads JSON, works, and answers JSON."""

    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await studio.working(handle, await _json(request)))
        except InputError as error:
            return _refusal(error)

    return answer


def _refusal(error: InputError) -> Response:
    return JSONResponse({"error": str(error)}, 400)


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


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    # A lone surrogate is text for JSON, but cannot be written anywhere.
    if not isinstance(value, str) or not value or len(value.encode("utf-8", "surrogatepass")) > MAX_JSON:
        raise InputError(f"{key} must be text")
    return value.encode("utf-8", "replace").decode()


def _whole(body: dict[str, Any], key: str, default: int) -> int:
    value = body.get(key, default)
    if type(value) is not int or abs(value) > 10_000:
        raise InputError(f"{key} must be a whole number")
    return value


def _is_term(number: str, strength: Any) -> bool:
    right = isinstance(number, str) and number.isdecimal() and number.isascii() and len(number) < 6
    return right and type(strength) in (int, float) and abs(strength) <= 1e4
