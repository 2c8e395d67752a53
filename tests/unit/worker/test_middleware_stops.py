"""Middleware around handlers that are stopped, and middleware that is stopped itself."""

from __future__ import annotations

import asyncio
import threading

import pytest

from atlas_grpc.errors import RetryIn
from atlas_grpc.model import Failed, Released, Stopped, TimedOut
from atlas_grpc.worker import JobContext, handler, middleware
from tests.unit.worker import kit_handlers
from tests.unit.worker.around import WAITERS, Seen, begun, quick, task_waits, thread_double, thread_whose, value
from tests.unit.worker.memory_source import BOUND, ManualClock, running


@pytest.mark.parametrize("fn", WAITERS)
async def test_a_cancelled_job_stops_as_if_there_were_none(fn):
    seen = Seen()
    async with running(fn, seen.called("it")) as (source, runner):
        job = source.add(fn.__name__)
        await source.said(job, "begun")
        source.stop(job)
        assert await source.outcome(job) == Stopped()
        assert seen.steps == ["it before", "it CancelledError" if fn is task_waits else "it Cancelled"]
        assert runner.busy == 0


@pytest.mark.parametrize("fn", WAITERS)
async def test_a_lost_attempt_reports_nothing(fn):
    async with running(fn, quick, Seen().called("it")) as (source, runner):
        job = source.add(fn.__name__)
        await source.said(job, "begun")
        source.stop(job, "lost")
        await source.until(lambda: runner.busy == 0)
        await source.outcome(source.add("quick"))
        assert job not in source.outcomes


@pytest.mark.parametrize("fn", WAITERS)
async def test_a_time_limit_is_kept(fn):
    clock = ManualClock()
    async with running(fn, Seen().called("it"), clock=clock) as (source, _):
        job = source.add(fn.__name__, time_left=3_000_000)
        await source.said(job, "begun")
        await clock.asleep(4)
        clock.advance(4)
        assert await source.outcome(job) == TimedOut()


@pytest.mark.parametrize("part", ["before", "after"])
@pytest.mark.parametrize("fn", [quick, thread_whose])
async def test_a_stop_cuts_the_middleware_itself(fn, part):
    called = []

    @middleware
    async def lingers(ctx, call_next):
        if part == "after":
            called.append(await call_next())
        ctx.info("lingers")
        await asyncio.Event().wait()

    async with running(fn, lingers) as (source, runner):
        job = source.add(fn.__name__)
        await source.said(job, "lingers")
        source.stop(job)
        assert await source.outcome(job) == Stopped()
        assert runner.busy == 0


@pytest.mark.parametrize("fn", [quick, thread_whose])
async def test_a_stopped_attempt_does_not_begin_its_handler(fn):
    begun, told = [], []

    @middleware
    async def swallows(ctx, call_next):
        ctx.info("lingers")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append(ctx.cancelled)
        begun.append(await call_next())

    async with running(fn, swallows) as (source, _):
        job = source.add(fn.__name__)
        await source.said(job, "lingers")
        source.stop(job)
        assert await source.outcome(job) == Stopped()
        assert (begun, told) == ([], [True])


@pytest.mark.parametrize("why", ["cancelled", "lost"])
async def test_a_stop_before_the_first_step_is_not_missed(why):
    called = []

    @middleware
    async def never(ctx, call_next):
        called.append(1)

    async with running(quick, never) as (source, runner):
        original = runner._start

        def start_and_stop(assignment, now):
            original(assignment, now)
            source.on_stop(assignment.job_id, assignment.fence, why)

        runner._start = start_and_stop
        job = source.add("quick")
        await source.started(job)
        await source.until(lambda: runner.busy == 0)
        if why == "cancelled":
            assert await source.outcome(job) == Stopped()
        assert called == []


@pytest.mark.parametrize("part", ["before", "after"])
@pytest.mark.parametrize("fn", [quick, thread_whose, kit_handlers.times])
async def test_one_that_swallows_its_cancellation_is_given_up(fn, part, caplog):
    clock = ManualClock()
    release = asyncio.Event()

    @middleware(types=[fn.__name__])
    async def stubborn(ctx, call_next):
        if part == "after":
            await call_next()
        ctx.info("stubborn")
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with running(fn, quick, stubborn, clock=clock, cancel_grace=7) as (source, runner):
        job = source.add(fn.__name__)
        try:
            async with asyncio.timeout(BOUND):
                while not any(line.message == "stubborn" for line in source.logs(job)):
                    clock.advance(0.1)  # updates come only when it moves
                    await asyncio.sleep(0.001)
            source.stop(job)
            for _ in range(1 if fn is not kit_handlers.times else 2):
                assert job not in source.outcomes
                await clock.asleep(7)
                clock.advance(7)
            assert await source.outcome(job) == Stopped()
            assert runner.busy_by_type == {fn.__name__: 1}
            assert "stays busy" in caplog.text
        finally:
            release.set()
        await source.until(lambda: runner.busy == 0)


async def test_drain_gives_back_what_middleware_holds_up():
    release = asyncio.Event()

    @middleware(types=["quick"])
    async def stubborn(ctx, call_next):
        ctx.info("begun")
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with running(quick, *WAITERS, stubborn, Seen().called("it"), cancel_grace=0.05) as (source, runner):
        jobs = [source.add(fn.__name__) for fn in (quick, *WAITERS)]
        for job in jobs:
            await source.said(job, "begun")
        async with asyncio.timeout(BOUND):
            await runner.drain(0.05)
        assert [source.outcomes[job] for job in jobs] == [Released()] * 3
        release.set()


async def test_a_runner_ends_though_a_thread_behind_middleware_does_not():
    release = threading.Event()

    @handler
    def stubborn_thread(ctx: JobContext) -> None:
        ctx.info("begun")
        release.wait(BOUND)

    before = asyncio.all_tasks()
    async with running(stubborn_thread, Seen().called("it"), cancel_grace=0.05) as (source, runner):
        job = source.add("stubborn_thread")
        await source.said(job, "begun")
        async with asyncio.timeout(BOUND):
            await runner.drain(0)
            while asyncio.all_tasks() - before - {asyncio.current_task()}:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        assert source.outcomes[job] == Released()
    release.set()
    await asyncio.sleep(0.05)  # the thread comes home to nobody


@pytest.mark.parametrize("fn", WAITERS)
async def test_one_that_gives_up_gets_control_back_when_the_handler_has_stopped(fn):
    seen = []

    @middleware
    async def impatient(ctx, call_next):
        try:
            async with asyncio.timeout(0.01):
                await call_next()
        except TimeoutError:
            seen.append(ctx.cancelled)
            raise RetryIn(5) from None

    async with running(fn, impatient) as (source, runner):
        outcome = await source.outcome(source.add(fn.__name__))
        assert isinstance(outcome, Failed)
        assert outcome.retry_in == 5_000_000
        assert seen == [True]
        assert runner.busy == 0


@pytest.mark.parametrize("fn", WAITERS)
async def test_one_that_ends_before_its_handler_keeps_the_slot_until_that_has_ended(fn, caplog):
    strays = []
    begun.clear()

    @middleware
    async def leaves(ctx, call_next):
        strays.append(asyncio.ensure_future(call_next()))
        while not begun.is_set():  # noqa: ASYNC110 - threads set it too
            await asyncio.sleep(0.001)
        return "left"

    async with running(fn, leaves) as (source, runner):
        assert value(await source.outcome(source.add(fn.__name__))) == "left"
        assert runner.busy == 0
        assert "ended before its call_next()" in caplog.text
        assert isinstance((await asyncio.gather(*strays, return_exceptions=True))[0], BaseException)


async def test_call_next_is_awaited_once_at_a_time_and_not_too_late():
    kept = []

    @middleware
    async def twice(ctx, call_next):
        kept.append(call_next)
        first = asyncio.ensure_future(call_next())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="while it ran"):
            await call_next()
        return await first

    async with running(thread_double, twice) as (source, _):
        assert value(await source.outcome(source.add("thread_double", {"n": 1}))) == 2
        with pytest.raises(RuntimeError, match="had ended"):
            await kept[0]()


async def test_a_handler_that_finished_while_it_was_stopped_has_finished():
    @handler
    async def finishes_anyway(ctx: JobContext) -> str:
        ctx.info("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished first"

    async with running(finishes_anyway, Seen().called("it")) as (source, _):
        job = source.add("finishes_anyway")
        await source.said(job, "begun")
        source.stop(job)
        assert value(await source.outcome(job)) == "finished first"
