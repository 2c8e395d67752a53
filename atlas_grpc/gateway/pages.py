"""The small routes of the port: `/`, health, readiness, metrics, the API description and its page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec
from grpc_health.v1 import health_pb2

from . import docs
from .failures import wrong_method
from .http import JSON

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .calls import Calls
    from .docs import Asset
    from .http import Request

    Page = Callable[[Request], Awaitable[None]]

READINESS = "readiness"
"""The name under which the health service of the server says whether it takes work."""
_READY_TIMEOUT = 2.0
_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
_ADDRESSES = {
    "/docs": "the API, to read and to try",
    "/openapi.json": "the API as OpenAPI 3.1",
    "/v1/jobs": "jobs over REST",
    "/v1/jobTypes": "what can be submitted",
    "/jobs": "the REST interface of Atlas 0.2",
    "/healthz": "is the process alive?",
    "/readyz": "does it take work?",
    "/metrics": "metrics for Prometheus",
}
_INDEX = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Atlas</title></head>'
    "<body><h1>Atlas</h1><ul>{links}</ul></body></html>\n"
)
_INDEX_CSP = [(b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]


class Pages:
    """The routes by path. `describe` makes the OpenAPI document, once, when it is first asked for."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        calls: Calls,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]] | None,
        describe: Callable[[], bytes],
    ) -> None:
        self._check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=None,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._calls = calls
        self._describe = describe
        self._document: bytes | None = None
        self._assets: dict[bytes, Asset] | None = None
        self._routes: dict[bytes, Page] = {
            b"/": self._index,
            b"/healthz": self._alive,
            b"/readyz": self._ready,
            b"/favicon.ico": self._no_icon,
            b"/openapi.json": self._openapi,
        }
        addresses = dict(_ADDRESSES)
        if metrics is None:
            del addresses["/metrics"]
        else:
            self._routes[b"/metrics"] = partial(_show_metrics, metrics)
        links = "".join(f'<li><a href="{path}">{path}</a>: {what}</li>' for path, what in addresses.items())
        self._index_page = _INDEX.format(links=links).encode()
        self._index_json = msgspec.json.encode({"service": "atlas", "addresses": addresses})

    def find(self, request: Request) -> Page | None:
        """What serves this path; None when it is not one of these. Raises a 405 `Failure`."""
        page = self._routes.get(request.path)
        if page is None and request.path.startswith(b"/docs"):
            page = self._docs if request.path in self._loaded() else None
        if page is not None and request.method not in ("GET", "HEAD"):
            raise wrong_method(["GET", "HEAD"])
        return page

    async def _index(self, request: Request) -> None:
        if b"text/html" in request.headers.get(b"accept", b""):
            await request.reply(200, self._index_page, _HTML, _INDEX_CSP)
        else:
            await request.reply(200, self._index_json)

    async def _alive(self, request: Request) -> None:
        await request.reply(200, b"ok\n", _TEXT)

    async def _ready(self, request: Request) -> None:
        ready = not self._calls.draining and await self._serving()
        await request.reply(200 if ready else 503, b"ready\n" if ready else b"not ready\n", _TEXT)

    async def _serving(self) -> bool:
        data = health_pb2.HealthCheckRequest(service=READINESS).SerializeToString()
        try:
            answer = await self._check(data, timeout=_READY_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _no_icon(self, request: Request) -> None:
        await request.start(204, [(b"cache-control", b"max-age=86400")])
        await request.write(b"", more=False)

    async def _openapi(self, request: Request) -> None:
        if self._document is None:
            self._document = self._describe()
        await request.reply(200, self._document, JSON, [(b"cache-control", b"no-cache")])

    async def _docs(self, request: Request) -> None:
        asset = self._loaded()[request.path]
        tag = next((value for name, value in asset.headers if name == b"etag"), None)
        if tag is not None and request.headers.get(b"if-none-match") == tag:
            await request.start(304, asset.headers)
            await request.write(b"", more=False)
            return
        await request.reply(200, asset.body, asset.content_type, asset.headers)

    def _loaded(self) -> dict[bytes, Asset]:
        if self._assets is None:
            self._assets = docs.load()
        return self._assets


async def _show_metrics(render: Callable[[str], Awaitable[tuple[bytes, str]]], request: Request) -> None:
    body, kind = await render(request.headers.get(b"accept", b"").decode("latin-1"))
    await request.reply(200, body, kind.encode())
