"""What stands before the page: headers on every answer, and a refusal of whatever a visitor of the page has no need to ask.

The server behind it is gradio, which offers programs far more than this page uses: files, addresses fetched on a visitor's behalf, calls
by name. What is not on the short list here is not answered, in whatever version of gradio.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from latlas.app.upload_folder import UploadFolder
from latlas.app.uploads import MOST_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_FILES = 100  # in one request; what a room takes is less, and it says so in words
MOST_AT_ONCE = 6 * MOST_BYTES  # of all pictures in one request
_MARGIN = 100_000  # bytes of a form around its pictures
_MOST_ASKED = 1_000_000  # bytes of any other request: sliders and settings
_PATIENCE = 120.0  # seconds that a request may take to come in

_API = "/gradio_api"
_FILE, _UPLOAD, _PROGRESS, _JOIN = f"{_API}/file=", f"{_API}/upload", f"{_API}/upload_progress", f"{_API}/queue/join"
_READ = {
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/robots.txt",
    "/manifest.json",
    f"{_API}/theme.css",
    f"{_API}/startup-events",
    f"{_API}/app_id",  # asked every two seconds once the connection is lost, until it answers: then the page loads itself again
    f"{_API}/queue/data",
    _PROGRESS,
}
_READ_BELOW = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/")
_ASKED = {_JOIN, _UPLOAD, f"{_API}/cancel", f"{_API}/reset"}

# The page may load from, and send to, the server it came from, and nobody else. Gradio's page has scripts and styles in its HTML, and
# what it shows as HTML are templates that the browser compiles: without the three 'unsafe' words the page stays empty. What they would
# let in still has nowhere to send anything.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer", under which browsers call the origin of what the page itself sends unknown.
    "referrer-policy": "same-origin",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=(), payment=(), display-capture=()",
}


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: App, uploads: UploadFolder, *, is_own_name: Callable[[str], bool] | None = None) -> None:
        """Stand before an application.

        Args:
            app: gradio's.
            uploads: where pictures go; the only files that are answered with.
            is_own_name: tells whether the server may be called by a name. A page elsewhere can make its own name lead here and then read
                what the server answers; but the browser still sends that name. None: by any.
        """
        self._app = app
        self._uploads = uploads
        self._is_own_name = is_own_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        method, path = scope["method"], scope["path"]
        send = _with_headers(send, private=path.startswith(_FILE))
        refusal = self._refusal(scope)
        if refusal is not None:
            await _tell(send, *refusal)
        elif method == "POST" and path == _UPLOAD:
            await self._take(scope, receive, send)
        elif method == "POST":
            await self._pass_on(scope, receive, send)
        elif path == _PROGRESS:
            # An upload is taken whole, so there is nothing to tell of its course.
            await _answer(send, 200, b'data: {"msg": "done"}\n\n', b"text/event-stream")
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._is_own_name is not None and not self._is_own_name(_name_of(host)):
            return 421, "This page is called by another name: 127.0.0.1, localhost, or what latlas explore --name says."
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path in _READ or path.startswith(_READ_BELOW):
                return None
            if path.startswith(_FILE) and self._uploads.size(path.removeprefix(_FILE)) is not None:
                return None
            return 404, "There is nothing here."
        if method != "POST" or path not in _ASKED:
            return 404, "There is nothing here."
        origin = headers.get(b"origin")
        # Behind a server that passes requests on, the page's name is the forwarded one.
        homes = (host, headers.get(b"x-forwarded-host", host).split(",")[0].strip())
        # Or it changed the page's name and told neither; but what a browser says of itself no page can write.
        same = headers.get(b"sec-fetch-site") == "same-origin"
        if origin is not None and not same and origin.partition("://")[2] not in homes:
            return 403, "Another page asked this."
        return None

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take pictures in, and answer with their paths."""
        size = _length(scope)
        if size is None:
            await _tell(send, 411, "The length of the pictures is not told.")
        elif size > MOST_AT_ONCE + _MARGIN:
            await _tell(send, 413, f"At most {MOST_AT_ONCE / 1e6:.0f} MB of pictures are taken at once.")
        elif not self._uploads.reserve(2 * size):  # as it comes in, and as it is kept
            await _tell(send, 503, "Too many pictures are under way. Try again in a minute.")
        else:
            try:
                await self._keep(scope, receive, send)
            finally:
                self._uploads.release(2 * size)

    async def _keep(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.datastructures import UploadFile
        from starlette.exceptions import HTTPException
        from starlette.formparsers import MultiPartException
        from starlette.requests import ClientDisconnect, Request

        try:
            form = await asyncio.wait_for(Request(scope, receive).form(max_files=MOST_FILES, max_fields=10), _PATIENCE)
        except TimeoutError:
            await _tell(send, 408, "The pictures did not come.")
            return
        except ClientDisconnect:
            return
        except (HTTPException, MultiPartException):
            await _tell(send, 400, "This is no form with pictures.")
            return
        except OSError:
            await _tell(send, 507, "The pictures cannot be kept: the server's folder of temporary files is full or gone.")
            return
        try:
            given = [each for each in form.getlist("files") if isinstance(each, UploadFile)]
            if not given:
                await _tell(send, 400, "This is no form with pictures.")
                return
            if any((each.size or 0) > MOST_BYTES for each in given):
                await _tell(send, 413, f"At most {MOST_BYTES / 1e6:.0f} MB are read of a picture. Save it smaller.")
                return
            try:
                paths = [await asyncio.to_thread(self._uploads.put, await each.read()) for each in given]
            except OSError:  # the disk is full, or the folder was cleared away
                await _tell(send, 507, "The pictures cannot be kept: the server's folder of temporary files is full or gone.")
                return
        finally:
            await form.close()
        await _answer(send, 200, json.dumps(paths).encode())

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request whole, look at the files that it names, and hand it on."""
        try:
            body = await asyncio.wait_for(_body(receive, _MOST_ASKED), _PATIENCE)
        except TimeoutError:
            await _tell(send, 408, "The request did not come.")
            return
        if body is None:
            await _tell(send, 413, "The request is too long.")
            return
        refusal = self._files_refused(body) if scope["path"] == _JOIN else None
        if refusal is not None:
            await _tell(send, *refusal)
            return
        await self._app(scope, _replayed(body, receive), send)

    def _files_refused(self, body: bytes) -> tuple[int, str] | None:
        try:
            paths = list(_paths(json.loads(body)))
        except (ValueError, RecursionError):
            return 400, "This is no request of the page."
        # Gradio would fetch an address for the visitor, and read as many files as are named, one named often read as often.
        sizes = [self._uploads.size(path) if isinstance(path, str) else None for path in paths]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return 410, "The picture is here no more. Upload it again."
        if len(known) > MOST_FILES or sum(known) > MOST_AT_ONCE:
            return 413, f"At most {MOST_AT_ONCE / 1e6:.0f} MB of pictures are read at once."
        return None


def _name_of(host: str) -> str:
    """Return a Host header without its port.

    >>> _name_of("localhost:7860"), _name_of("[::1]:7860"), _name_of("127.0.0.1"), _name_of("127.0.0.1.example.com:80")
    ('localhost', '::1', '127.0.0.1', '127.0.0.1.example.com')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _paths(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _paths(each)


def _length(scope: Scope) -> int | None:
    """Return how long a request says that it is; None where it does not, or comes in pieces, to which its length does not apply."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) < 16 and b"transfer-encoding" not in headers else None


async def _body(receive: Receive, most: int) -> bytes | None:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    handed = False

    async def next_message() -> Message:
        nonlocal handed
        if handed:
            return await receive()
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _with_headers(send: Send, *, private: bool) -> Send:
    own = {name.encode(): value.encode() for name, value in HEADERS.items()}
    if private:
        own[b"cache-control"] = b"no-store"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            theirs = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
            message = {**message, "headers": [*theirs, *own.items()]}
        await send(message)

    return sending


async def _tell(send: Send, status: int, words: str) -> None:
    await _answer(send, status, json.dumps({"detail": words}).encode())


async def _answer(send: Send, status: int, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
