"""Middleware: what it can do, and what it cannot break."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import pytest

from atlas_grpc.errors import FailNow, GiveBack, RetryIn
from atlas_grpc.model import Released
from atlas_grpc.worker import Depends, Registry, handler, middleware
from atlas_grpc.worker.around import Around
from atlas_grpc.worker.problems import InvalidHandler
from tests.unit.worker.around import (
    DOUBLES,
    RAISERS,
    Seen,
    quick,
    task_double,
    task_whose,
    thread_double,
    thread_whose,
    value,
    whose,
)
from tests.unit.worker.memory_source import BOUND, running


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
