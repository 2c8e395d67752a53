"""Cancellation, lost leases, time limits and drain, in coroutines and threads. Processes: test_processes.py."""

from __future__ import annotations

import asyncio
import threading

import pytest

from atlas_grpc.model import Released, Stopped, Succeeded, TimedOut
from atlas_grpc.worker import JobContext, Registry, Runner, handler
from tests.unit.worker.memory_source import BOUND, ManualClock, MemorySource, QuickClock, running


@handler
async def sleeper(ctx: JobContext) -> None:
    ctx.info("begun")
    await asyncio.Event().wait()


@handler
async def cleans_up(ctx: JobContext) -> None:
    ctx.info("begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        assert ctx.cancelled
        raise ValueError("while cleaning up") from None


@handler
async def finishes_anyway(ctx: JobContext) -> str:
    ctx.info("begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "finished first"


@handler
def thread_waits(ctx: JobContext) -> None:
    ctx.info("begun")
    assert ctx.wait_cancelled(BOUND)
    ctx.raise_if_cancelled()


@handler
def thread_gives_back(ctx: JobContext) -> None:
    ctx.info("begun")
    ctx.wait_cancelled(BOUND)
    ctx.give_back()


@handler
async def quick() -> None: ...


class Stubborn:
    """A handler each in a coroutine and in a thread that ends only when the test lets it."""

    def __init__(self):
        self.release = threading.Event()

        @handler
        async def stubborn_task(ctx: JobContext) -> None:
            ctx.info("begun")
            while not self.release.is_set():
                try:
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError:
                    ctx.info("ignored")

        @handler
        def stubborn_thread(ctx: JobContext) -> None:
            ctx.info("begun")
            self.release.wait(BOUND)

        self.handlers = [stubborn_task, stubborn_thread]


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (sleeper, Stopped()),
        (cleans_up, Stopped()),
        (thread_waits, Stopped()),
        (thread_gives_back, Stopped()),
    ],
)
async def test_a_cancelled_job_is_stopped(fn, expected):
    async with running(fn) as (source, runner):
        job = source.add(fn.__name__)
        await source.said(job, "begun")
        source.stop(job)
        assert await source.outcome(job) == expected
        assert runner.busy == 0


async def test_a_handler_that_finished_first_has_finished():
    async with running(finishes_anyway) as (source, _):
        job = source.add("finishes_anyway")
        await source.said(job, "begun")
        source.stop(job)
        assert isinstance(await source.outcome(job), Succeeded)


@pytest.mark.parametrize("fn", [sleeper, thread_waits, finishes_anyway])
async def test_a_lost_attempt_stops_and_reports_nothing(fn):
    async with running(fn, quick) as (source, runner):
        job = source.add(fn.__name__)
        await source.said(job, "begun")
        source.stop(job, "cancelled")
        source.stop(job, "lost")
        await source.until(lambda: runner.busy == 0)
        await source.outcome(source.add("quick"))
        assert job not in source.outcomes


class StopsAtOnce(MemorySource):
    """Stops each job so many passes of the loop after its lease: 1 is before the runner knows of it, 2 is before the
    first step of its coroutine."""

    def __init__(self, passes, why):
        super().__init__()
        self.passes = passes
        self.why = why
        self.told = asyncio.Event()

    async def lease(self, room, **more):
        taken = await super().lease(room, **more)
        for one in taken:
            self._later(self.passes, one)
        return taken

    def _later(self, passes, one):
        if passes == 0:
            self.on_stop(one.job_id, one.fence, self.why)
            self.told.set()
        else:
            asyncio.get_running_loop().call_soon(self._later, passes - 1, one)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("why", ["cancelled", "lost"])
async def test_a_stop_right_after_the_lease_is_not_missed(passes, why):
    called = []

    @handler
    async def never() -> None:
        called.append(1)

    async with running(never, source=StopsAtOnce(passes, why)) as (source, runner):
        job = source.add("never")
        if why == "cancelled":
            assert await source.outcome(job) == Stopped()
        else:
            await asyncio.wait_for(source.told.wait(), BOUND)
            await source.until(lambda: runner.busy == 0)
            await runner.stop()
            assert job not in source.outcomes
        assert called == []


async def test_a_stop_for_somebody_else_is_ignored():
    async with running(sleeper) as (source, _):
        job = source.add("sleeper")
        await source.said(job, "begun")
        source.on_stop(job, 999, "cancelled")
        source.on_stop("other", source.held[job].fence, "cancelled")
        assert job not in source.outcomes
        source.stop(job)
        assert await source.outcome(job) == Stopped()


@pytest.mark.parametrize("which", [0, 1])
async def test_a_handler_that_ignores_its_cancellation_keeps_its_slot(which, caplog):
    stubborn = Stubborn()
    fn = stubborn.handlers[which]
    clock = ManualClock()
    async with running(fn, quick, clock=clock, cancel_grace=7) as (source, runner):
        job = source.add(fn.__name__)
        await source.said(job, "begun")
        source.stop(job)
        await clock.asleep(7)
        clock.advance(7)
        assert await source.outcome(job) == Stopped()
        assert runner.busy_by_type == {fn.__name__: 1}
        assert "stays busy" in caplog.text
        stubborn.release.set()
        await source.until(lambda: runner.busy == 0)


@pytest.mark.parametrize("fn", [sleeper, thread_waits])
async def test_a_time_limit_is_enforced_a_little_late(fn):
    clock = ManualClock()
    async with running(fn, clock=clock) as (source, _):
        job = source.add(fn.__name__, time_left=3_000_000)
        await source.said(job, "begun")
        await clock.asleep(4)
        clock.advance(3.5)
        assert job not in source.outcomes
        clock.advance(0.5)
        assert await source.outcome(job) == TimedOut()


async def test_an_earlier_time_limit_is_not_slept_through():
    clock = ManualClock()
    async with running(sleeper, clock=clock) as (source, _):
        late = source.add("sleeper", time_left=100_000_000)
        await source.said(late, "begun")
        await clock.asleep(101)
        soon = source.add("sleeper", time_left=1_000_000)
        await clock.asleep(2)
        clock.advance(2)
        assert isinstance(await source.outcome(soon), TimedOut)
        assert late not in source.outcomes


async def test_drain_lets_handlers_finish():
    gate = asyncio.Event()

    @handler
    async def gated(ctx: JobContext) -> str:
        ctx.info("begun")
        await gate.wait()
        return "done"

    async with running(gated, slots=1) as (source, runner):
        first, second = source.add("gated"), source.add("gated")
        await source.said(first, "begun")
        draining = asyncio.create_task(runner.drain(60))
        await asyncio.sleep(0)
        gate.set()
        await draining
        assert isinstance(source.outcomes[first], Succeeded)
        assert second not in source.held
        assert source.closed


async def test_drain_gives_the_rest_back():
    stubborn = Stubborn()
    functions = (sleeper, cleans_up, thread_waits, thread_gives_back, finishes_anyway, *stubborn.handlers)
    clock = ManualClock()
    async with running(*functions, clock=clock, cancel_grace=2) as (source, runner):
        jobs = {fn.__name__: source.add(fn.__name__) for fn in functions}
        for job in jobs.values():
            await source.until(lambda job=job: job in source.held)
        await clock_started(source, jobs, clock)
        draining = asyncio.create_task(runner.drain(30))
        await clock.asleep(30)
        assert not source.outcomes
        clock.advance(30)
        await clock.asleep(2)
        clock.advance(2)
        async with asyncio.timeout(BOUND):
            await draining
        outcomes = {name: source.outcomes[job] for name, job in jobs.items()}
        assert isinstance(outcomes.pop("finishes_anyway"), Succeeded)
        assert set(outcomes.values()) == {Released()}
        stubborn.release.set()


async def clock_started(source, jobs, clock):
    """Waits until all have begun, on a clock on which updates come only when it moves."""
    while not all(source.logs(job) for job in jobs.values()):
        clock.advance(0.1)
        await asyncio.sleep(0.001)


async def test_stop_hurries_a_drain():
    async with running(sleeper) as (source, runner):
        job = source.add("sleeper")
        await source.said(job, "begun")
        draining = asyncio.create_task(runner.drain(3600))
        await asyncio.sleep(0)
        assert not draining.done()
        async with asyncio.timeout(BOUND):
            await runner.stop()
            await draining
        assert source.outcomes[job] == Released()


async def test_a_drain_whose_caller_gave_up_goes_on():
    async with running(sleeper, cancel_grace=0.01) as (source, runner):
        job = source.add("sleeper")
        await source.said(job, "begun")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runner.drain(3600), 0.01)
        async with asyncio.timeout(BOUND):
            await runner.stop()
        assert source.outcomes[job] == Released()


async def test_a_cancelled_run_gives_its_jobs_back():
    registry, source = Registry(), MemorySource()
    registry.add(sleeper)
    task = asyncio.create_task(Runner(registry, source).run())
    job = source.add("sleeper")
    await source.said(job, "begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.outcomes[job] == Released()
    assert source.closed


async def test_a_source_that_never_answers_does_not_hold_up_the_end(monkeypatch):
    source_gate = asyncio.Event()
    async with running(quick, clock=QuickClock()) as (source, runner):
        source.gates["finish"] = source_gate
        job = source.add("quick")
        await source.started(job)
        monkeypatch.setattr("atlas_grpc.worker.runner.FLUSH_TIME", 0.05)
        async with asyncio.timeout(BOUND):
            await runner.stop()
        assert source.closed
        assert job not in source.outcomes
