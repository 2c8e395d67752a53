"""The composition root: one server from settings, with everything that runs in it, started and stopped in order."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from ..clock import SystemClock
from ..engine.announced import Announced
from ..engine.engine import Engine, EngineSettings
from ..gateway import create_app, serve_http
from ..model import SECOND, State
from ..observe.logs import bind_job, get_logger
from ..observe.loop_lag import LoopLag
from ..observe.merge import SharedMetrics
from ..observe.metrics import (
    JOBS,
    OF_THE_STORE,
    QUEUE_DEPTH,
    QUEUE_OLDEST_AGE,
    STORE_BYTES,
    WATCH_STREAMS,
    WORKER_SLOTS,
    WORKER_SLOTS_BUSY,
    Metrics,
)
from ..observe.series import Names
from ..stores import open_store
from ..stores.measured import measured
from ..stores.vitals import VITALS, Sampler
from ..worker.problems import RegistryError
from . import listening, probes, reflection
from .admission import objection
from .calls import Guard
from .catalog import SharedCatalog
from .listening import AddressInUse
from .service import SERVICE, JobService
from .unknown import UnknownMethods
from .worker_service import SERVICE as WORKER_SERVICE
from .worker_service import WorkerService

if TYPE_CHECKING:
    from ..clock import Clock
    from ..config import Settings
    from ..gateway import HttpServer
    from ..model import Assignment, Content
    from ..process.sibling import Sibling
    from ..worker import Registry, Runner

READINESS = "readiness"
_HEALTH_NAMES = ("", SERVICE, READINESS)
_CLOSE_GRACE = 5.0
_SHARED_METRICS = {name for name, *_ in OF_THE_STORE} | {name for name, known in VITALS.items() if known.shared}

log = get_logger("atlas.server")


class AtlasServer:
    """An Atlas server in this process and on this event loop: `start`, then `stop`."""

    def __init__(
        self, settings: Settings, registry: Registry, *, clock: Clock | None = None, sibling: Sibling | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        store = open_store(settings, self.clock)
        self._vitals = Sampler(store, self.clock)
        timed = measured(store, self.metrics)
        announced = Announced(timed, self.clock)
        self.engine = Engine(
            timed,
            SharedCatalog(registry, announced),
            announced=announced,
            clock=self.clock,
            rng=random.Random(),
            metrics=self.metrics,
            settings=EngineSettings(
                retention=_micros(settings.retention),
                cancel_grace=_micros(settings.cancel_grace),
                lease=_micros(settings.lease),
                watch_heartbeat=settings.watch_heartbeat,
            ),
        )
        self.name = settings.name or f"{socket.gethostname()}-{os.getpid()}"
        self.guard = Guard(
            self.metrics,
            unary_timeout=settings.unary_timeout,
            max_unary=settings.max_unary_in_flight,
            max_streams=settings.max_watches,
        )
        self._workers = WorkerService(self.engine, max_result=settings.max_result_bytes)
        self.grpc_address = ""
        self.http: HttpServer | None = None
        self._registry = registry
        self._shared_metrics: SharedMetrics | None = None
        if sibling is not None and sibling.folder is not None:
            self._shared_metrics = SharedMetrics(sibling.folder, sibling.name, self._own_metrics, _SHARED_METRICS)
        self._probes = probes.Probes()
        self._server = grpc.aio.server(options=channel_options(settings))
        self._runner: Runner | None = None
        self._forced = False
        self._tasks: list[asyncio.Task[object]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._channel: grpc.aio.Channel | None = None

    async def start(self) -> None:
        """Listens and serves. Raises AddressInUse, or LifespanFailed; nothing is left running then."""
        try:
            await self._start()
        except BaseException:
            await self.stop(0)
            raise

    async def _start(self) -> None:
        self.grpc_address = self._bind(self.settings.grpc_address)
        await self.engine.start()
        self._server.add_generic_rpc_handlers(
            (
                JobService(self.engine, max_payload=self.settings.max_payload_bytes).handlers(self.guard),
                self._workers.handlers(self.guard),
            )
        )
        if self.settings.reflection:
            self._server.add_generic_rpc_handlers(tuple(reflection.handlers([SERVICE, WORKER_SERVICE, probes.SERVICE])))
        self._server.add_generic_rpc_handlers((self._probes.handlers(self.guard), UnknownMethods()))
        self._add_gauges()
        self._spawn(self.guard.watch_deadlines())
        self._spawn(LoopLag(self.clock, self.metrics).run())
        if self.settings.worker:
            await self._start_worker()
        local = self._bind_local() if self.settings.http_address != "off" else None
        if self._shared_metrics is not None:
            await self._shared_metrics.start()
        await self._server.start()
        if local is not None:
            await self._start_http(local)
        self._set_health(serving=True)

    def _bind(self, address: str) -> str:
        listening.refuse_taken(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise listening.refused(address) from None
        if address.startswith("unix:"):
            return address
        return f"{address.rpartition(':')[0]}:{port}"

    def _bind_local(self) -> str:
        """A socket that only this user can reach, for the REST mirror to call the server by."""
        self._folder = tempfile.TemporaryDirectory(prefix="atlas-")
        address = f"unix:{Path(self._folder.name) / 'grpc.sock'}"
        self._server.add_insecure_port(address)
        return address

    async def _start_http(self, local: str) -> None:
        self._channel = grpc.aio.insecure_channel(local, options=_MESSAGE_SIZES)
        host, _, port = self.settings.http_address.rpartition(":")
        app = create_app(
            self._channel,
            metrics=self._render_metrics if self.settings.metrics else None,
            max_body=self.settings.max_message_bytes,
            allowed_hosts=self.settings.http_allowed_hosts,
        )
        try:
            self.http = await serve_http(app, host.strip("[]"), int(port), reuse_port=self.settings.reuse_port)
        except OSError as error:
            raise AddressInUse(error.strerror) from None

    async def _render_metrics(self, accept: str) -> tuple[bytes, str]:
        if self._shared_metrics is not None:
            return await self._shared_metrics.render(accept)
        await self._vitals.refresh()
        return self.metrics.render(accept)

    async def _own_metrics(self) -> bytes:
        await self._vitals.refresh()
        return self.metrics.render()[0]

    async def _start_worker(self) -> None:
        from ..worker import Runner

        settings = self.settings
        self._runner = Runner(
            self._registry,
            self.engine.worker_session(),
            name=self.name,
            slots=settings.slots,
            threads=settings.threads,
            processes=settings.handler_processes or os.cpu_count() or 1,
            clock=self.clock,
            admit=self._admit,
            max_result_bytes=settings.max_result_bytes,
            cancel_grace=settings.cancel_grace,
            bind=_bind_logs,
        )
        self._spawn(self._runner.run())
        await self._runner.ready()

    def _admit(self, content: Content) -> str | None:
        return objection(content, self.settings.max_result_bytes)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        task.add_done_callback(_complain)
        self._tasks.append(task)

    def _set_health(self, *, serving: bool) -> None:
        for name in _HEALTH_NAMES:
            self._probes.set(name, serving=serving)

    def _add_gauges(self) -> None:
        engine = self.engine
        gauge = self.metrics.gauge
        gauge(*JOBS, lambda: {state.name: engine.counts.states.get(state, 0) for state in State})
        queues = Names(self.metrics.max_series)
        gauge(*QUEUE_DEPTH, lambda: _by_queue(engine, queues, depth=True))
        gauge(*QUEUE_OLDEST_AGE, lambda: _by_queue(engine, queues, depth=False))
        gauge(*STORE_BYTES, lambda: engine.counts.size or {})
        self.metrics.readings(VITALS, self._vitals.readings)
        gauge(*WATCH_STREAMS, engine.hub.open_watches)
        gauge(*WORKER_SLOTS, lambda: sum(session.slots for session in engine.leases.sessions.values()))
        gauge(*WORKER_SLOTS_BUSY, lambda: sum(len(session.in_hand) for session in engine.leases.sessions.values()))

    async def stop(self, grace: float) -> None:
        """Drains and stops: no new jobs; running handlers get `grace` seconds, what they do not finish goes back; then
        watches end with their last token, calls in flight finish, and everything closes."""
        self.guard.draining = True
        self._set_health(serving=False)
        self._workers.drain()
        if self._runner is not None:
            await self._runner.drain(grace)
        await self.engine.hub.drain()
        self._probes.close()
        close = 0.0 if self._forced else min(grace, _CLOSE_GRACE)
        if self.http is not None:
            await self.http.stop(close)
            self.http = None
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        await self.guard.close(close)
        await self._server.stop(close)
        await self.guard.settle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._vitals.close()
        await self.engine.stop()
        if self._shared_metrics is not None:
            await self._shared_metrics.stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def stop_now(self) -> None:
        """Makes a `stop` that is going on hurry: handlers are stopped, calls are cut as soon as it comes to them.

        It leaves the gRPC server to that `stop`: two stops of one grpc.aio server at a time can crash the process.
        """
        self._forced = True
        if self._runner is not None:
            await self._runner.stop()
        if self.http is not None:
            await self.http.stop(0)


_MESSAGE_SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """The options of the gRPC server. Unknown names are silently ignored by gRPC, so a test checks that each one
    bites.
    """
    return [
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.keepalive_time_ms", _millis(settings.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _millis(settings.keepalive_timeout)),
        # Without it a ping of keepalive, too, has a minute to be answered.
        ("grpc.http2.ping_timeout_ms", _millis(settings.keepalive_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _millis(settings.min_ping_interval)),
        ("grpc.max_connection_idle_ms", _millis(settings.max_connection_idle)),
        ("grpc.max_connection_age_ms", _millis(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _millis(settings.connection_age_grace)),
        ("grpc.server_handshake_timeout_ms", _millis(settings.handshake_timeout)),
    ]


def _by_queue(engine: Engine, names: Names, *, depth: bool) -> dict[str, float]:
    now = engine.store.now()
    counts = [(names.bounded(count.queue), count) for count in engine.counts.queues]
    found = dict.fromkeys(names, 0.0)
    for name, count in counts:
        age = (now - count.oldest) / SECOND
        found[name] = found[name] + count.depth if depth else max(found[name], age)
    return found


def _bind_logs(assignment: Assignment) -> None:
    """Puts the ids of the job on what its handler logs in this process."""
    bind_job(assignment.job_id, assignment.namespace, assignment.traceparent)


def _complain(task: asyncio.Task[object]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RegistryError):  # that one is told by `start`
        log.error("a background loop of the server ended", exc_info=error)


def _micros(seconds: float) -> int:
    return round(seconds * SECOND)


def _millis(seconds: float) -> int:
    return max(1, round(seconds * 1000))
