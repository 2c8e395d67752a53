"""`atlas worker`: a worker as a process, from the first connection to the last signal."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..observe.logs import bind_job, configure, get_logger
from ..process import leave, run_loop, tame_garbage_collector
from ..worker import Registry, Runner
from ..worker.problems import RegistryError
from .source import RemoteSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Assignment
    from ..process.sibling import Sibling

OK, FAILED, USAGE = 0, 1, 2
BURST_PATIENCE = 30.0
"""Seconds without a server after which a worker that is to end by itself gives up."""

log = get_logger("atlas.worker")


def run(
    handlers: Sequence[str],
    servers: Sequence[str],
    *,
    name: str,
    queues: Sequence[str],
    slots: int,
    threads: int,
    processes: int,
    grace: float,
    cancel_grace: float,
    log_level: str,
    log_format: str,
    burst: bool = False,
    max_jobs: int | None = None,
    sibling: Sibling | None = None,
    uvloop: bool = True,
) -> int:
    """Works until it is told to stop, or has nothing more to do; answers the exit code."""
    pipeline = configure(log_level, log_format)  # type: ignore[arg-type]
    registry = Registry()
    try:
        for spec in handlers:
            registry.load(spec)
    except Exception as error:
        print(f"atlas: {error}", file=sys.stderr)
        return USAGE
    if not registry.types():
        print("atlas: there is no handler in " + ", ".join(handlers), file=sys.stderr)
        return USAGE
    clock, rng = SystemClock(), random.Random()

    async def work() -> int:
        source = RemoteSource(servers, clock, rng, queues=queues)
        runner = Runner(
            registry,
            source,
            name=sibling.name if sibling is not None else name,
            slots=slots,
            threads=threads,
            processes=processes or os.cpu_count() or 1,
            clock=clock,
            rng=rng,
            cancel_grace=cancel_grace,
            bind=_bind_logs,
            burst=burst,
            max_jobs=max_jobs,
        )
        tame_garbage_collector()
        code = await _until_over(runner, source, grace, sibling, patience=BURST_PATIENCE if burst else None)
        await leave(pipeline, code)
        return code

    try:
        return run_loop(work(), uvloop=uvloop)
    except RegistryError as error:  # a lifespan
        print(f"atlas: {error}", file=sys.stderr)
        return FAILED


async def _until_over(
    runner: Runner, source: RemoteSource, grace: float, sibling: Sibling | None, *, patience: float | None
) -> int:
    """Works until all is done that it was to do, or until a signal or the end of its parent: drains then; a second
    signal stops it at once. Gives up when there was no server for so many seconds of `patience`.
    """
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    if sibling is not None:
        sibling.hold_on(lambda: signals.put_nowait(signal.SIGTERM))

    async def forsake() -> None:
        with suppress(RegistryError):  # a lifespan's, which `run` raises too
            await runner.ready()
            if sibling is not None:
                sibling.at_work()
            await source.without_server(patience)

    working = asyncio.create_task(runner.run())
    first = asyncio.create_task(signals.get())
    forsaken = asyncio.create_task(forsake())
    await asyncio.wait([working, first, forsaken], return_when=asyncio.FIRST_COMPLETED)
    code = OK
    if first.done():
        await _drain(runner, first.result(), signals, grace)
    elif not working.done():
        log.error("no server takes the worker: it ends", seconds=patience)
        code = FAILED
        await runner.stop()
    first.cancel()
    forsaken.cancel()
    await working
    log.info("stopped")
    return code


async def _drain(runner: Runner, first: signal.Signals, signals: asyncio.Queue[signal.Signals], grace: float) -> None:
    log.info("draining", signal=first.name, timeout=grace)
    draining = asyncio.create_task(runner.drain(grace))
    second = asyncio.create_task(signals.get())
    await asyncio.wait([draining, second], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        log.warning("forced to stop", signal=second.result().name)
        await runner.stop()
    second.cancel()
    await draining


def _bind_logs(assignment: Assignment) -> None:
    bind_job(assignment.job_id, assignment.namespace, assignment.traceparent)
