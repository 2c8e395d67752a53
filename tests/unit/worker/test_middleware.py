"""Middleware: what it can do, and what it cannot break."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import time
from typing import Annotated

import pytest

from atlas_grpc.errors import FailNow, GiveBack, HandlerFailed, RetryIn
from atlas_grpc.model import Content, Failed, Released, Stopped, Succeeded, TimedOut
from atlas_grpc.worker import Depends, JobContext, Registry, handler, middleware
from atlas_grpc.worker.around import Around
from atlas_grpc.worker.problems import InvalidHandler
from tests.unit.worker import kit_handlers
from tests.unit.worker.memory_source import BOUND, ManualClock, running

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


@pytest.mark.parametrize("fn", DOUBLES)
async def test_the_first_is_the_outermost(fn):
    seen = Seen()
    async with running(fn, seen.called("outer"), seen.called("inner")) as (source, runner):
        assert value(await source.outcome(source.add(fn.__name__, {"n": 4}))) == 8
        assert seen.steps == ["outer before", "inner before", "inner 8", "outer 8"]
        assert runner.busy == 0


@pytest.mark.parametrize("fn", [task_whose, thread_whose])
async def test_the_handler_sees_context_variables(fn):
    @middleware
    async def names(ctx, call_next):
        whose.set(ctx.id)
        return await call_next()

    async with running(fn, names) as (source, _):
        jobs = [source.add(fn.__name__) for _ in range(3)]
        assert [value(await source.outcome(job)) for job in jobs] == jobs
    assert whose.get() == "nobody"


@pytest.mark.parametrize("fn", DOUBLES)
async def test_what_it_returns_is_the_result(fn):
    @middleware
    async def wraps(ctx, call_next):
        return {"value": await call_next(), "job": ctx.id}

    async with running(fn, wraps) as (source, _):
        job = source.add(fn.__name__, {"n": 4})
        assert value(await source.outcome(job)) == {"value": 8, "job": job}


async def test_a_result_that_it_changed_in_place_is_the_result():
    @handler
    async def makes() -> dict[str, int]:
        return {"made": 1}

    @middleware
    async def adds(ctx, call_next):
        result = await call_next()
        result["added"] = 2
        return result

    async with running(makes, adds) as (source, _):
        assert value(await source.outcome(source.add("makes"))) == {"made": 1, "added": 2}


async def test_it_need_not_execute_the_handler():
    called = []

    @handler
    async def never() -> None:
        called.append(1)

    @middleware
    async def from_cache(ctx, call_next):
        return "cached"

    async with running(never, from_cache) as (source, _):
        assert value(await source.outcome(source.add("never"))) == "cached"
        assert called == []


async def test_it_may_execute_the_handler_again():
    tries = []

    @handler
    def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    @middleware
    async def again(ctx, call_next):
        while True:
            try:
                return await call_next()
            except OSError:
                continue

    async with running(flaky, again) as (source, runner):
        assert value(await source.outcome(source.add("flaky"))) == 3
        assert runner.busy == 0


@pytest.mark.parametrize("fn", RAISERS)
@pytest.mark.parametrize(
    ("into", "expected"),
    [
        (FailNow("given up", reason="GIVEN_UP"), ("GIVEN_UP", False, None)),
        (RetryIn(3, reason="LATER"), ("LATER", True, 3_000_000)),
        (GiveBack(2), Released(2_000_000)),
    ],
)
async def test_it_turns_an_exception_into_another(fn, into, expected, caplog):
    @middleware
    async def turns(ctx, call_next):
        try:
            return await call_next()
        except KeyError as exc:
            raise into from exc

    async with running(fn, turns) as (source, _):
        outcome = await source.outcome(source.add(fn.__name__, {"what": "key"}))
        if isinstance(expected, Released):
            assert outcome == expected
        else:
            assert (outcome.failure.reason, outcome.retryable, outcome.retry_in) == expected
        assert "handler failed" not in caplog.text, "it was dealt with"
        other = await source.outcome(source.add(fn.__name__, {"what": "value"}))
        assert (other.failure.reason, other.failure.message) == ("VALUE_ERROR", "ValueError: value")
        assert caplog.text.count("handler failed") == 1


async def test_what_it_raises_itself_is_the_outcome():
    @middleware
    async def exits(ctx, call_next):
        await call_next()
        raise SystemExit(3)

    async with running(quick, exits) as (source, _):
        assert (await source.outcome(source.add("quick"))).failure.reason == "SYSTEM_EXIT"


async def test_a_payload_that_does_not_fit_is_seen_too():
    seen = Seen()
    async with running(task_double, seen.called("it")) as (source, _):
        outcome = await source.outcome(source.add("task_double", {"n": "4"}))
        assert outcome.failure.reason == "INVALID_PAYLOAD"
        assert seen.steps == ["it before", "it PayloadRefused"]


async def test_a_result_that_is_refused_is_refused_whoever_made_it():
    @middleware
    async def unreal(ctx, call_next):
        await call_next()
        return float("nan")

    async with running(quick, unreal) as (source, _):
        outcome = await source.outcome(source.add("quick"))
        assert (outcome.failure.reason, outcome.retryable) == ("RESULT_INVALID", False)


async def test_it_is_around_the_types_that_it_names():
    seen = Seen()

    @middleware(types=["task_*"])
    async def tasks_only(ctx, call_next):
        seen.steps.append(ctx.type)
        return await call_next()

    async with running(task_double, thread_double, tasks_only) as (source, runner):
        for fn in DOUBLES:
            await source.outcome(source.add(fn.__name__, {"n": 1}))
        assert seen.steps == ["task_double"]
        kinds = runner._capacity.kinds
        assert isinstance(kinds["task_double"].executor, Around)
        assert kinds["thread_double"].executor is kinds["thread_double"].lane.executor


async def test_that_of_a_registry_is_around_its_own_handlers():
    seen = Seen()
    inner, outer = Registry(), Registry()
    inner.middleware(seen.called("inner"))
    inner.handler()(task_double)
    outer.include(quick, inner)
    inner.handler()(thread_double)
    outer.include(inner)
    outer.middleware(seen.called("outer"))
    async with running(outer) as (source, _):
        await source.outcome(source.add("quick"))
        assert seen.steps == ["outer before", "outer None"]
        seen.steps.clear()
        for fn in DOUBLES:
            await source.outcome(source.add(fn.__name__, {"n": 1}))
        assert seen.steps == ["inner before", "outer before", "outer 2", "inner 2"] * 2


def test_it_is_registered_once():
    seen = Seen().called("it")
    registry = Registry()
    registry.include(quick, seen, seen)
    other = Registry()
    other.middleware(seen)
    other.include(quick)
    registry.include(other)
    assert registry.around("quick") == [seen]


def test_what_cannot_be_a_middleware_is_refused():
    def plain(ctx, call_next): ...

    async def lonely(ctx): ...

    async def silent(ctx, call_next) -> None: ...

    async def fine(ctx, call_next): ...

    for fn, types, why in (
        (plain, ["*"], "coroutine function"),
        (lonely, ["*"], "two arguments"),
        (silent, ["*"], "must return"),
        (fine, "mail.*", "list of job types"),
        (fine, [], "list of job types"),
    ):
        with pytest.raises(InvalidHandler, match=why) as caught:
            middleware(types=types)(fn)
        assert str(caught.value).startswith(
            f"middleware test_what_cannot_be_a_middleware_is_refused.<locals>.{fn.__name__}"
        )
        with pytest.raises(InvalidHandler, match=why):
            Registry().middleware(types=types)(fn)


# Stops


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


# Processes


@pytest.fixture
def notes(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("KIT_NOTES", str(path))
    return lambda: path.read_text().splitlines()


async def test_the_result_of_a_process_is_written_once():
    async with running(kit_handlers.doubled, Seen().called("it"), processes=1) as (source, _):
        assert value(await source.outcome(source.add("doubled", {"number": 2}))) == 4


async def test_it_is_around_processes():
    seen = Seen()
    async with running(kit_handlers.times, seen.called("it"), processes=1) as (source, _):
        outcome = await source.outcome(source.add("times"))
        assert outcome == Succeeded(Content(b'{"at":"2024-01-02T00:00:00Z"}'))
        assert seen.steps == ["it before", "it {'at': '2024-01-02T00:00:00Z'}"]


async def test_what_a_process_raised_passes_through_unchanged(caplog):
    seen = Seen()
    fn = kit_handlers.raises_in_process
    ways = ["fail", "retry", "back", "value", "die"]
    async with running(fn, processes=1) as (source, _):
        plain = [await source.outcome(source.add(fn.__name__, {"how": how})) for how in ways]
    logged = caplog.text.count("handler failed")
    async with running(fn, seen.called("it"), processes=1) as (source, _):
        around = [await source.outcome(source.add(fn.__name__, {"how": how})) for how in ways]
    assert around == plain
    assert logged == 1
    assert caplog.text.count("handler failed") == 2 * logged
    raised = ["FailNow", "RetryIn", "GiveBack", "HandlerFailed", "HandlerFailed"]
    assert seen.steps == [step for name in raised for step in ("it before", f"it {name}")]


async def test_what_a_process_raised_can_be_turned_into_something_else(caplog):
    @middleware
    async def turns(ctx, call_next):
        try:
            return await call_next()
        except HandlerFailed as exc:
            raise FailNow(exc.message, reason=f"{exc.reason}_TURNED") from exc

    fn = kit_handlers.raises_in_process
    async with running(fn, turns, processes=1) as (source, _):
        outcome = await source.outcome(source.add(fn.__name__, {"how": "value"}))
    assert (outcome.failure.reason, outcome.retryable) == ("VALUE_ERROR_TURNED", False)
    assert "ValueError: wrong" in outcome.failure.message
    assert "handler failed" not in caplog.text


@pytest.mark.parametrize("why", ["cancelled", "lost"])
async def test_a_stubborn_process_is_killed_all_the_same(why):
    seen = Seen()
    async with running(kit_handlers.stubborn, quick, seen.called("it"), processes=1, cancel_grace=0.05) as (
        source,
        runner,
    ):
        job = source.add("stubborn")
        await source.until(lambda: source.logs(job))
        source.stop(job, why)
        await source.until(lambda: runner.busy == 0)
        await source.outcome(source.add("quick"))
        assert source.outcomes.get(job) == (Stopped() if why == "cancelled" else None)
        assert seen.steps[:2] == ["it before", "it HandlerFailed"]


async def test_dependencies_are_made_and_left_inside_of_it():
    steps = []

    async def session():
        steps.append(whose.get())
        try:
            yield 1
        finally:
            steps.append("left")

    async def uses(one) -> int:
        return one

    uses.__annotations__["one"] = Annotated[int, Depends(session)]  # it stands in no module
    handler(uses)

    @middleware
    async def names(ctx, call_next):
        whose.set("mine")
        result = await call_next()
        steps.append("after")
        return result

    async with running(uses, names) as (source, _):
        assert value(await source.outcome(source.add("uses"))) == 1
    assert steps == ["mine", "left", "after"]


async def test_many_at_once_each_end_once():
    @middleware
    async def yields(ctx, call_next):
        await asyncio.sleep(0)
        return await call_next()

    began = time.monotonic()
    async with running(task_double, thread_double, yields, slots=50, threads=8) as (source, runner):
        jobs = [source.add(fn.__name__, {"n": n}) for n in range(200) for fn in DOUBLES]
        assert [value(await source.outcome(job)) for job in jobs] == [n * 2 for n in range(200) for _ in DOUBLES]
        assert runner.busy == 0
    assert time.monotonic() - began < BOUND
