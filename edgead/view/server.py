"""The HTTP side: static files, server-sent events, pictures of rejects, what-if counts, and changes."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgead.runtime.connections import ConnectionLimits, LimitedLoop
from edgead.view.access import Access, Refused
from edgead.view.hub import MOST_VIEWERS, Hub
from edgead.view.threads import in_thread

LARGEST_HEAD, LARGEST_BODY = 8192, 4096
"""Bytes of a request's address and headers, and of a change."""
BODY_WITHIN = 10.0
"""Seconds for the body of a change to arrive."""
LIMITS = ConnectionLimits(connections=128, silence=10.0, unanswered=65536, rate=65536)
"""A connection whose request is worked on is neither silent nor closed in favour of another one."""
STUCK_AFTER = 20.0
"""Seconds without progress after which a viewer is disconnected."""
END_WITHIN = 2.0
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclasses.dataclass(frozen=True)
class Answers:
    """What the server asks its owner, in worker threads.

    Attributes:
        perform: makes a change; see `edgead.view.actions.Actions.perform`.
        large: the whole picture of a reject as JSON, by its id; None if it is gone.
        scores: histogram of scores as JSON.
        what_if: effect of a threshold as JSON.
    """

    perform: Callable[[str, bytes, str], None]
    large: Callable[[str], bytes | None]
    scores: Callable[[], bytes]
    what_if: Callable[[float], bytes]


class Events(Response):
    """The stream of one viewer. A viewer that does not read is disconnected."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(media_type="text/event-stream", headers=HEADERS)
        self._hub = hub
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send_all(send))
        gone = asyncio.ensure_future(_wait_for_end(receive))
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._hub.messages()) as messages:
            async for message in messages:
                body = {"type": "http.response.body", "body": message, "more_body": True}
                await asyncio.wait_for(send(body), STUCK_AFTER)
        await send({"type": "http.response.body", "body": b""})


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Server:
    """Serves the page in a thread of its own.

    Args:
        link: bound and listening.
        access: decides on requests.
        hub: messages for viewers.
        answers: everything else.
        say: shows a line if the server ends by itself.
    """

    def __init__(
        self, link: socket.socket, access: Access, hub: Hub, answers: Answers, say: Callable[[str], None]
    ) -> None:
        self._link, self._access, self._hub, self._answers, self._say = link, access, hub, answers, say
        self._static = _read_static()
        config = uvicorn.Config(
            self._guarded(),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=16384,
        )
        self._server, self._loop = uvicorn.Server(config), LimitedLoop(LIMITS)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="view-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End within `END_WITHIN` seconds."""
        self._closing = True
        self._hub.close()
        self._server.should_exit = True
        self._thread.join(END_WITHIN)
        self._link.close()

    def _serve(self) -> None:
        why = "it ended"
        try:
            try:
                self._loop.run_until_complete(self._run())
            finally:
                self._loop.close()
        except BaseException as error:  # the line goes on without its page
            why = f"{type(error).__name__}: {error}"
        if not self._closing:
            self._say(f"Warning: the live page has stopped, the run continues without it: {why}")

    async def _run(self) -> None:
        self._hub.begin()
        await self._server.serve(sockets=[self._link])

    def _guarded(self) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/static/{name}", self._file),
                Route("/api/events", self._events),
                Route("/api/scores", self._scores),
                Route("/api/what-if", self._what_if),
                Route("/api/rejects/{id}", self._reject),
                Route("/api/changes/{action}", self._change, methods=["POST"]),
            ],
            exception_handlers={Refused: _refuse, Exception: _fail, 404: _not_found, 405: _not_found},
        )

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            with self._loop.working(tuple(scope["client"] or ())):
                await answer(scope, receive, send)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            try:
                _check_size(scope)
                self._access.check_host(request.headers)
                if scope["path"].startswith("/api/") and scope["method"] != "POST":
                    self._access.check_reader(request.headers, _address(request))
            except Refused as error:
                await _text(str(error), error.status)(scope, receive, send)
                return
            await app(scope, receive, send)

        return guarded

    async def _index(self, _request: Request) -> Response:
        return self._static_file("index.html")

    async def _file(self, request: Request) -> Response:
        return self._static_file(request.path_params["name"])

    def _static_file(self, name: str) -> Response:
        if name not in self._static:
            return _text("Not found", 404)
        media_type = TYPES[name.rpartition(".")[2]]
        return Response(self._static[name], headers=HEADERS, media_type=media_type)

    async def _events(self, _request: Request) -> Response:
        if self._hub.viewers >= MOST_VIEWERS:
            return _text(f"{MOST_VIEWERS} pages are open. Close one of them.", 503)
        return Events(self._hub)

    async def _scores(self, _request: Request) -> Response:
        return _json(await in_thread(self._answers.scores))

    async def _what_if(self, request: Request) -> Response:
        try:
            threshold = float(request.query_params.get("threshold", ""))
        except ValueError:
            threshold = math.nan
        if not math.isfinite(threshold):
            raise Refused(400, "threshold must be a finite number.")
        return _json(await in_thread(self._answers.what_if, threshold))

    async def _reject(self, request: Request) -> Response:
        return _json(await in_thread(self._answers.large, request.path_params["id"]))

    async def _change(self, request: Request) -> Response:
        address = _address(request)
        self._access.check_changer(request.headers, address)
        body = await _read_body(request)
        await in_thread(self._answers.perform, request.path_params["action"], body, address)
        return _json(b"{}")


def _check_size(scope: Scope) -> None:
    size = len(scope["query_string"]) + len(scope["raw_path"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEAD:
        raise Refused(431, f"At most {LARGEST_HEAD} bytes.")


async def _read_body(request: Request) -> bytes:
    async def read() -> bytes:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                raise Refused(413, f"At most {LARGEST_BODY} bytes.")
        return body

    try:
        return await asyncio.wait_for(read(), BODY_WITHIN)
    except (asyncio.TimeoutError, ClientDisconnect) as error:
        raise Refused(408, "The request did not arrive in time.") from error


def _read_static() -> dict[str, bytes]:
    """Read the files of the page once. Only their names can be asked for, so no path leads elsewhere."""
    folder = resources.files("edgead.view") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in TYPES}


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _text(text: str, status: int) -> Response:
    return Response(text + "\n", status, headers=HEADERS, media_type="text/plain")


def _json(data: bytes | None) -> Response:
    return _text("Not found", 404) if data is None else Response(data, headers=HEADERS, media_type="application/json")


async def _refuse(_request: Request, error: Any) -> Response:
    return _text(str(error), error.status)


async def _not_found(_request: Request, error: Any) -> Response:
    return _text("Not found" if error.status_code == 404 else "Not allowed", error.status_code)


async def _fail(_request: Request, _error: Exception) -> Response:
    return _text("The page could not answer.", 500)
