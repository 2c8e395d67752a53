"""The jobs of this benchmark. What happens to them is written to the file `BENCH_EVENTS`, with the time: nanoseconds of
the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

from atlas_grpc import JobContext, handler

_file = os.open(os.environ["BENCH_EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _note(what: str, ctx: JobContext) -> None:
    os.write(_file, f"{what} {ctx.id} {ctx.attempt} {time.monotonic_ns()}\n".encode())


@handler(retry={"max_attempts": 100})
async def hold(*, ctx: JobContext) -> None:
    """Goes on until it is told to stop."""
    _note("began", ctx)
    ctx.info("begun")
    try:
        await asyncio.Event().wait()
    finally:
        _note("stopped", ctx)


@handler(retry={"max_attempts": 10})
async def neighbour(seconds: float, *, ctx: JobContext) -> None:
    """Keeps a slot for a while."""
    await asyncio.sleep(seconds)
    _note("ended", ctx)


@handler(retry={"max_attempts": 10}, executor="process")
def neighbour_process(seconds: float, *, ctx: JobContext) -> None:
    """The same in a process."""
    time.sleep(seconds)
    _note("ended", ctx)


@handler
async def poison() -> None:
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@handler(executor="process")
def poison_process() -> None:
    """Kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)
