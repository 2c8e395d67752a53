"""`atlas serve`: a server as a process, from the banner to the last signal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import OPTIONS
from ..errors import AtlasError
from ..observe.logs import LogPipeline, configure, get_logger
from ..observe.metrics import LOG_LINES_DROPPED
from ..process import leave, run_loop, tame_garbage_collector
from ..process.sibling import Sibling
from ..stores import WrongUrl, check_shared
from ..worker import Registry
from ..worker.builtin import sleep
from ..worker.problems import RegistryError
from .app import AtlasServer
from .listening import AddressInUse
from .siblings import serve_together

if TYPE_CHECKING:
    from ..config import Loaded, Settings
    from ..process.changes import Changes

OK, FAILED, USAGE = 0, 1, 2
log = get_logger("atlas.server")


def run(loaded: Loaded, changes: Changes | None = None) -> int:
    """Serves until it is told to stop, and answers the exit code: 0 after a clean stop, 1 when it could not start, 2
    when the handlers cannot be loaded. Starts anew after each of the `changes`.
    """
    settings = loaded.settings
    pipeline = configure(settings.log_level, settings.log_format)  # type: ignore[arg-type]
    sibling = Sibling.of(os.environ)
    parent = sibling is None and (settings.processes > 1 or changes is not None)
    registry = Registry()
    registry.add(sleep)
    try:
        for spec in () if parent else settings.handlers:
            registry.load(spec)
    except Exception as error:
        print(f"atlas: {error}", file=sys.stderr)
        return USAGE
    try:
        if settings.processes > 1 or settings.reuse_port:
            check_shared(settings.store)
        serving = serve_together(settings, changes) if parent else _serve(settings, registry, pipeline, sibling)
        return run_loop(serving, uvloop=settings.uvloop)
    except (AddressInUse, AtlasError, RegistryError, WrongUrl) as error:
        print(f"atlas: {error}", file=sys.stderr)
        return FAILED


async def _serve(settings: Settings, registry: Registry, pipeline: LogPipeline, sibling: Sibling | None) -> int:
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = AtlasServer(settings, registry, sibling=sibling)
    server.metrics.counter(*LOG_LINES_DROPPED, lambda: pipeline.dropped)
    if sibling is not None:
        sibling.hold_on(lambda: signals.put_nowait(signal.SIGTERM))
    told = asyncio.create_task(signals.get())
    if not await _started(server, told, signals):
        await leave(pipeline, OK)
        return OK
    tame_garbage_collector()
    if sibling is not None:
        sibling.at_work()
    _announce(server)
    first = await told
    log.info("draining", signal=first.name, timeout=settings.drain_timeout)
    drain = asyncio.create_task(server.stop(settings.drain_timeout))
    force = asyncio.create_task(signals.get())
    await asyncio.wait([drain, force], return_when=asyncio.FIRST_COMPLETED)
    if not drain.done():
        log.warning("forced to stop", signal=force.result().name)
        await server.stop_now()
    force.cancel()
    await drain
    log.info("stopped")
    await leave(pipeline, OK)
    return OK


async def _started(
    server: AtlasServer, told: asyncio.Task[signal.Signals], signals: asyncio.Queue[signal.Signals]
) -> bool:
    """Starts it, which may take as long as the lifespans of its handlers do; False when it is told to stop before, or
    told twice, if what is being started does not let itself be stopped.
    """
    starting = asyncio.create_task(server.start())
    await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        return True
    log.info("told to stop before it served", signal=told.result().name)
    starting.cancel()
    forced = asyncio.create_task(signals.get())
    await asyncio.wait([starting, forced], return_when=asyncio.FIRST_COMPLETED)
    forced.cancel()
    if starting.done() and not starting.cancelled():
        starting.result()
    return False


def _announce(server: AtlasServer) -> None:
    settings = server.settings
    log.info(
        "serving",
        grpc=server.grpc_address,
        http=None if server.http is None else f"http://{_host(server.http.host)}:{server.http.port}",
        store=OPTIONS["store"].show(settings.store),
        types=len(server.engine.catalog.types()),
        name=server.name,
    )
    if not sys.stdout.isatty() and settings.log_format == "json":
        return
    lines = ["", f"  gRPC     {server.grpc_address}"]
    sleep = '\'{"type": "sleep", "payload": {"seconds": 3}}\''
    paste = [
        f"  {_command()} run sleep '{{\"seconds\": 3}}'" + _server_flag(server),
        f"  grpcurl -plaintext -d {sleep} {server.grpc_address} atlas.v1.JobService/SubmitJob",
    ]
    if server.http is not None:
        http = f"http://{_host(server.http.host)}:{server.http.port}"
        lines += [f"  REST     {http}/v1/jobs", f"  API page {http}/docs"]
        paste.append(f"  curl -s {http}/v1/jobs -H 'Content-Type: application/json' -d {sleep}")
    _print("\n".join([*lines, "", "  Try, from another shell:", *(f"  {line}" for line in paste), ""]))


def _print(text: str) -> None:
    """A server does not end because nobody takes its banner; what handlers print must not fail from then on either."""
    try:
        print(text, flush=True)
    except OSError as error:
        log.warning("stdout takes no output", error=error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command() -> str:
    """How the command line was called, or can be."""
    if shutil.which("atlas") is not None:
        return "atlas"
    called = Path(sys.argv[0])
    return str(called) if called.name == "atlas" else f"{Path(sys.executable).name} -m atlas_grpc.cli"


def _server_flag(server: AtlasServer) -> str:
    return "" if server.grpc_address == "127.0.0.1:50051" else f" --server {server.grpc_address}"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
