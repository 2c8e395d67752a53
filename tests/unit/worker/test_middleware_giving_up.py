"""Middleware that gives up on its handler, and executes it again."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from atlas_grpc.model import Succeeded
from atlas_grpc.worker import JobContext, handler, middleware
from tests.unit.worker import kit_handlers
from tests.unit.worker.memory_source import BOUND, ManualClock, running


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


# Processes


@pytest.fixture
def notes(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("KIT_NOTES", str(path))
    return lambda: path.read_text().splitlines()


@pytest.fixture
def again(notes):
    """Gives up on the handler once that has begun, and executes it again."""

    @middleware
    async def again(ctx, call_next):
        first = asyncio.ensure_future(call_next())
        while not notes():  # noqa: ASYNC110 - a process says it
            await asyncio.sleep(0.001)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        return await call_next()

    return again


async def test_a_process_that_does_not_stop_when_it_was_given_up_is_killed_after_its_grace(again):
    clock = ManualClock()
    async with running(kit_handlers.hangs_at_first, again, processes=1, clock=clock, cancel_grace=7) as (source, _):
        job = source.add("hangs_at_first")
        await clock.asleep(7)
        assert job not in source.outcomes
        clock.advance(7)
        assert value(await source.outcome(job)) == "done"


async def test_a_process_that_stopped_in_time_is_not_killed_when_it_is_at_work_again(again, notes):
    clock = ManualClock()
    async with running(kit_handlers.until_told, again, processes=1, clock=clock, cancel_grace=7) as (source, _):
        job = source.add("until_told")
        await source.until(lambda: len(notes()) == 2)
        clock.advance(7)
        await asyncio.sleep(0)
        kit_handlers.note("go")
        assert value(await source.outcome(job)) == "done"


async def test_a_process_that_is_left_behind_by_its_middleware_is_killed_after_its_grace(notes):
    strays = []

    @middleware
    async def leaves(ctx, call_next):
        strays.append(asyncio.ensure_future(call_next()))
        while not notes():  # noqa: ASYNC110 - a process says it
            await asyncio.sleep(0.001)
        return "left"

    clock = ManualClock()
    async with running(kit_handlers.hangs_at_first, leaves, processes=1, clock=clock, cancel_grace=7) as (
        source,
        runner,
    ):
        job = source.add("hangs_at_first")
        await clock.asleep(7)
        assert runner.busy == 1
        clock.advance(7)
        assert value(await source.outcome(job)) == "left"
        assert runner.busy == 0
    await asyncio.gather(*strays, return_exceptions=True)
