"""`atlas worker`: a worker as a process, from the first connection to the last signal."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..observe.logs import bind_job, configure, get_logger
from ..process import leave, run_loop, tame_garbage_collector
from ..worker import Registry, Runner
from .source import RemoteSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Assignment

OK, FAILED, USAGE = 0, 1, 2

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
    uvloop: bool = True,
) -> int:
    """Works until it is told to stop, and answers the exit code."""
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
            name=name,
            slots=slots,
            threads=threads,
            processes=processes or os.cpu_count() or 1,
            clock=clock,
            rng=rng,
            cancel_grace=cancel_grace,
            bind=_bind_logs,
        )
        tame_garbage_collector()
        code = await _until_told(runner, grace)
        await leave(pipeline, code)
        return code

    return run_loop(work(), uvloop=uvloop)


async def _until_told(runner: Runner, grace: float) -> int:
    """Works until SIGTERM or SIGINT, drains then; a second signal stops it at once."""
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    working = asyncio.create_task(runner.run())
    first = asyncio.create_task(signals.get())
    await asyncio.wait([working, first], return_when=asyncio.FIRST_COMPLETED)
    if not first.done():
        working.result()
        return FAILED
    log.info("draining", signal=first.result().name, timeout=grace)
    draining = asyncio.create_task(runner.drain(grace))
    second = asyncio.create_task(signals.get())
    await asyncio.wait([draining, second], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        log.warning("forced to stop", signal=second.result().name)
        await runner.stop()
    second.cancel()
    await working
    log.info("stopped")
    return OK


def _bind_logs(assignment: Assignment) -> None:
    bind_job(assignment.job_id, assignment.namespace, assignment.traceparent)
