"""Handlers for the tests of `atlas worker`."""

from __future__ import annotations

import asyncio
import os
import time

from atlas_grpc import JobContext, handler
from atlas_grpc.errors import FailNow, RetryIn


@handler
async def add(a: int, b: int = 1) -> int:
    return a + b


@handler
def shout(text: str, *, ctx: JobContext) -> str:
    ctx.info("loud")
    ctx.progress(1, 2, "half")
    return text.upper()


@handler(executor="process")
def pid() -> int:
    return os.getpid()


@handler
async def fails() -> None:
    raise FailNow("no use", reason="NO_USE")


@handler
async def nap(seconds: float, *, ctx: JobContext) -> str:
    ctx.info("begun")
    await asyncio.sleep(seconds)
    return "rested"


@handler
async def blocks(seconds: float) -> str:
    """Blocks the event loop, which no handler should."""
    time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
    return "rude"


@handler
async def stubborn(*, ctx: JobContext) -> None:
    """Waits to be told to stop."""
    ctx.info("begun")
    try:
        await asyncio.Event().wait()
    finally:
        ctx.info("told to stop")


@handler
async def worker_pid() -> int:
    """The process id of the worker, as coroutines run in it."""
    return os.getpid()


@handler
async def fails_once(pause: float, *, ctx: JobContext) -> None:
    if ctx.attempt == 1:
        raise RetryIn(pause)
