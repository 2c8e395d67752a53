"""Handlers for the tests of middleware, and one that tells what came by."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading

from atlas_grpc.model import Succeeded
from atlas_grpc.worker import JobContext, handler, middleware
from tests.unit.worker.memory_source import BOUND

whose = contextvars.ContextVar("whose", default="nobody")
begun = threading.Event()
"""Set by handlers that wait until they are stopped."""


@handler
async def task_double(n: int) -> int:
    return n * 2


@handler
def thread_double(n: int) -> int:
    return n * 2


@handler
async def task_whose() -> str:
    return whose.get()


@handler
def thread_whose() -> str:
    return whose.get()


@handler
async def task_waits(ctx: JobContext) -> None:
    ctx.info("begun")
    begun.set()
    await asyncio.Event().wait()


@handler
def thread_waits(ctx: JobContext) -> None:
    ctx.info("begun")
    begun.set()
    assert ctx.wait_cancelled(BOUND)
    ctx.raise_if_cancelled()


@handler
async def task_raises(what: str) -> None:
    raise {"value": ValueError, "key": KeyError}[what](what)


@handler
def thread_raises(what: str) -> None:
    raise {"value": ValueError, "key": KeyError}[what](what)


@handler
async def quick() -> None: ...


def value(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


DOUBLES = [task_double, thread_double]
RAISERS = [task_raises, thread_raises]
WAITERS = [task_waits, thread_waits]


class Seen:
    """A middleware that tells what came by."""

    def __init__(self):
        self.steps = []

    def called(self, name):
        @middleware
        async def see(ctx, call_next):
            self.steps.append(f"{name} before")
            try:
                result = await call_next()
            except BaseException as exc:
                self.steps.append(f"{name} {type(exc).__name__}")
                raise
            self.steps.append(f"{name} {result}")
            return result

        return see
