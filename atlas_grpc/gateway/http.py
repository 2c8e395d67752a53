"""One HTTP request over ASGI: its head at hand, its body read in pieces up to a limit, one way to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .failures import Disconnected, Failure, too_large

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .failures import Headers

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
_STANDING: Headers = [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]


class Request:
    """A request and its answer. `headers` has the last value of each lower-case name, `fields` all, in order."""

    __slots__ = ("fields", "headers", "method", "path", "query", "receive", "scope", "send", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.path: bytes = scope.get("raw_path") or scope["path"].encode()
        self.query: bytes = scope["query_string"]
        self.fields: Headers = scope["headers"]
        self.headers = dict(self.fields)
        self.started = False

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises a 413 `Failure` as soon as it proves longer than `limit` bytes."""
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            raise too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def disconnected(self) -> None:
        """Returns when the client went away; the body must have been read before."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *_STANDING]})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def reply(self, status: int, body: bytes, kind: bytes = JSON, headers: Headers | None = None) -> None:
        """A whole answer; never kept by caches unless `headers` says so."""
        fields = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *(headers or ())]
        if all(name != b"cache-control" for name, _ in fields):
            fields.append((b"cache-control", b"no-store"))
        await self.start(status, fields)
        await self.write(body, more=False)

    async def fail(self, failure: Failure) -> None:
        await self.reply(failure.http, failure.body(), JSON, failure.headers)
