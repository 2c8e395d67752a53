"""Handlers that kill what executes them, and their neighbours. Each start is written to `ATLAS_TEST_EXECUTIONS`."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from atlas_grpc import JobContext, handler

_file = os.open(os.environ["ATLAS_TEST_EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_RETRY = {"max_attempts": 4, "initial_backoff": 0.05, "max_backoff": 0.2}


def _begin(ctx: JobContext) -> None:
    os.write(_file, f"{ctx.id} {ctx.fence} {ctx.attempt}\n".encode())


@handler(retry=_RETRY, executor="process")
def kills_its_process(*, ctx: JobContext) -> None:
    _begin(ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@handler(retry=_RETRY)
async def kills_its_worker(*, ctx: JobContext) -> None:
    _begin(ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@handler(retry=_RETRY, executor="process")
def kills_its_worker_from_a_process(*, ctx: JobContext) -> None:
    _begin(ctx)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@handler(retry=_RETRY | {"max_attempts": 20})
async def neighbour(*, ctx: JobContext) -> None:
    _begin(ctx)
    await asyncio.sleep(0.05)


@handler(retry={"max_attempts": 1}, executor="process")
def neighbour_in_a_process(*, ctx: JobContext) -> None:
    _begin(ctx)
    time.sleep(0.05)


@handler(retry={"max_attempts": 1})
def neighbour_in_a_thread(*, ctx: JobContext) -> None:
    _begin(ctx)
    time.sleep(0.05)
