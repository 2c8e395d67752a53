"""uvicorn on the running event loop, beside the gRPC server: its own socket, no signal handlers, a clean drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING

import uvicorn

from .protocol import BoundedHttp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .app import Gateway

BACKLOG = 512
KEEP_ALIVE = 30
"""Seconds that an idle connection is kept."""
MAX_CONNECTIONS = 4096
"""Connections (streams included) beyond which requests are answered with 503."""
_LAST_WORD = 1.0
"""Seconds for the answers to calls that were cut at the end of the grace period."""


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the program it runs in, says when it listens, and stops when told instead of polling."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        # The tick with count 0 renews the date in the headers.
        while not await self.on_tick(0):
            if await _within(1.0, self.stopping.wait()):
                self.should_exit = True


class HttpServer:
    """A running HTTP server; made by `serve_http`."""

    def __init__(self, app: Gateway, server: _Uvicorn, sock: socket.socket) -> None:
        self._app = app
        self._server = server
        self._sock = sock
        self.host, self.port = sock.getsockname()[:2]
        """The address it listens on; `port` is the real one when 0 was asked for."""
        self._task = asyncio.get_running_loop().create_task(server.serve([sock]), name="atlas-http")

    async def started(self) -> None:
        """Returns when it listens. Raises what kept it from that."""
        listening = asyncio.ensure_future(self._server.listening.wait())
        done, _ = await asyncio.wait({listening, self._task}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task in done:
            self._task.result()

    async def stop(self, grace: float = 5.0) -> None:
        """Stops: no new connections, streams end with UNAVAILABLE, other calls have `grace` seconds to finish.

        What is not done by then is answered with 503. Safe to call again, also with a shorter grace.
        """
        for server in self._server.servers:
            server.close()
        calls = self._app.calls
        calls.drain()
        if not await _within(grace, calls.idle()):
            calls.abort()
            await _within(_LAST_WORD, calls.idle())
        self._server.stopping.set()
        self._server.config.timeout_graceful_shutdown = 1
        await asyncio.shield(self._task)


async def serve_http(
    app: Gateway, host: str = "127.0.0.1", port: int = 8080, *, reuse_port: bool = False
) -> HttpServer:
    """Serves `app` on the running loop until `stop`. Port 0 takes a free one; with `reuse_port` others may have it too.

    Raises OSError, with the address in its text, when the address cannot be bound.
    """
    sock = await bind(host, port, reuse_port=reuse_port)
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        limit_concurrency=MAX_CONNECTIONS,
    )
    server = HttpServer(app, _Uvicorn(config), sock)
    await server.started()
    return server


async def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A bound socket, not listening yet. Raises OSError that names the address."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise OSError(errno.EADDRNOTAVAIL, f"cannot resolve the HTTP address {host}:{port}") from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as err:
        sock.close()
        why = "it is in use" if err.errno == errno.EADDRINUSE else err.strerror
        raise OSError(err.errno, f"cannot listen for HTTP on {host}:{port}: {why}") from None
    return sock


async def _within(seconds: float, awaitable: object) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await awaitable  # type: ignore[misc]
    except TimeoutError:
        return False
    return True
