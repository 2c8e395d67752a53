"""Handlers that write down, in a file that outlives their process, that they began and what they returned.

`ATLAS_TEST_EXECUTIONS` names the file. A line is written at once, by one call, before the handler goes on. Lines of a
job's log say by which fence they were written.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

from atlas_grpc import JobContext, handler

_file = os.open(os.environ["ATLAS_TEST_EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_RETRY = {"max_attempts": 100, "initial_backoff": 0.02, "max_backoff": 0.1}


def _began(ctx: JobContext) -> None:
    os.write(_file, f"{ctx.id} {ctx.fence} {ctx.run} {ctx.attempt}\n".encode())


def _returns(ctx: JobContext) -> str:
    """A result that no other execution has, not even one of the same lease."""
    result = f"{ctx.fence}-{random.getrandbits(64):016x}"
    os.write(_file, f"{ctx.id} {ctx.fence} {ctx.run} {ctx.attempt} {result}\n".encode())
    return result


@handler(retry=_RETRY)
async def instant(*, ctx: JobContext) -> str:
    """Returns at once."""
    _began(ctx)
    return _returns(ctx)


@handler(retry=_RETRY)
async def short(seconds: float, *, ctx: JobContext) -> str:
    """Takes its time, and reports how far it is."""
    _began(ctx)
    ctx.info(str(ctx.fence))
    ctx.progress(0, 1)
    await asyncio.sleep(seconds)
    ctx.progress(1, 1)
    ctx.info(str(ctx.fence))
    return _returns(ctx)


@handler(retry=_RETRY)
async def long(*, ctx: JobContext) -> str:
    """Takes much time, so that what happens to its worker happens to it."""
    _began(ctx)
    ctx.info(str(ctx.fence))
    await asyncio.sleep(2)
    ctx.info(str(ctx.fence))
    return _returns(ctx)


@handler(retry=_RETRY)
def threaded(*, ctx: JobContext) -> str:
    """The same in a thread, for a shorter time; it is not to be stopped."""
    _began(ctx)
    time.sleep(0.1)
    ctx.info(str(ctx.fence))
    return _returns(ctx)


@handler(retry=_RETRY, executor="process")
def crunched(*, ctx: JobContext) -> str:
    """The same in a process."""
    _began(ctx)
    time.sleep(0.1)
    ctx.info(str(ctx.fence))
    return _returns(ctx)


@handler(retry=_RETRY)
async def flaky(*, ctx: JobContext) -> str:
    """Fails at its first attempt."""
    _began(ctx)
    ctx.info(str(ctx.fence))
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return _returns(ctx)


@handler(retry=_RETRY)
async def hopeless(*, ctx: JobContext) -> None:
    """Fails for good."""
    _began(ctx)
    ctx.fail("there is no hope")


@handler(retry=_RETRY)
async def endless(*, ctx: JobContext) -> None:
    """Runs until it is cancelled."""
    _began(ctx)
    await asyncio.Event().wait()
