"""Middleware that gives up on its handler, and executes it again."""

from __future__ import annotations

import asyncio
import json

import pytest

from atlas_grpc.model import Succeeded
from atlas_grpc.worker import JobContext, handler, middleware
from tests.unit.worker.memory_source import BOUND, running


def value(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


@middleware
async def tries_twice(ctx, call_next):
    try:
        async with asyncio.timeout(0.01):
            await call_next()
    except TimeoutError:
        assert ctx.cancelled
        return await call_next()


@pytest.mark.parametrize("style", ["task", "thread"])
async def test_a_handler_that_is_executed_again_is_not_stopped_any_more(style):
    tries = []

    async def task(ctx: JobContext) -> list[bool]:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return [ctx.cancelled, ctx.wait_cancelled(0)]

    def thread(ctx: JobContext) -> list[bool]:
        tries.append(1)
        if len(tries) == 1:
            assert ctx.wait_cancelled(BOUND)
        return [ctx.cancelled, ctx.wait_cancelled(0)]

    fn = handler(name="waits_once")({"task": task, "thread": thread}[style])
    async with running(fn, tries_twice) as (source, _):
        assert value(await source.outcome(source.add("waits_once"))) == [False, False]
        assert len(tries) == 2


async def test_a_job_that_is_stopped_is_stopped_also_while_it_is_executed_again():
    tries = []

    @handler
    async def waits(ctx: JobContext) -> None:
        tries.append(1)
        ctx.info(f"try {len(tries)}")
        await asyncio.Event().wait()

    async with running(waits, tries_twice) as (source, runner):
        job = source.add("waits")
        await source.said(job, "try 2")
        source.stop(job)
        assert not isinstance(await source.outcome(job), Succeeded)
        assert len(tries) == 2
        assert runner.busy == 0
