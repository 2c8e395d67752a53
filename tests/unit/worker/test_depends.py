"""Dependencies: made once for each attempt, and cleaned up after it. What is refused is in `test_depends_refused`."""

# No `from __future__ import annotations`: what stands in functions here is in no module for annotations to be found.

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import pytest

from atlas_grpc.errors import RetryIn
from atlas_grpc.model import Failed, Stopped, Succeeded
from atlas_grpc.worker import Depends, JobContext, Registry, handler
from tests.unit.worker import kit_handlers
from tests.unit.worker.memory_source import BOUND, ManualClock, running


@dataclass
class Point:
    x: int


class Steps(list):
    """What happened, and dependencies that tell."""

    def sync(self, name, *, fails_at_end=False, swallows=False):
        def made():
            self.append(f"open {name}")
            try:
                yield name
            except BaseException as exc:
                self.append(f"{name} saw {type(exc).__name__}")
                if not swallows:
                    raise
            self.append(f"close {name}")
            if fails_at_end:
                raise OSError(f"{name} cannot be closed")

        return made

    def asynchronous(self, name, *, fails_at_end=False, swallows=False):
        async def made():
            self.append(f"open {name}")
            await asyncio.sleep(0)
            try:
                yield name
            except BaseException as exc:
                self.append(f"{name} saw {type(exc).__name__}")
                if not swallows:
                    raise
            await asyncio.sleep(0)
            self.append(f"close {name}")
            if fails_at_end:
                raise OSError(f"{name} cannot be closed")

        return made


def handlers_with(*dependencies, does=lambda: None, kinds=("task", "thread")):
    """The same handler as a coroutine and as a plain function."""
    first, second = (*dependencies, dependencies[0])[:2]

    @handler
    async def task(a: Annotated[object, Depends(first)], b: Annotated[object, Depends(second)]) -> object:
        return does() or [a, b]

    @handler
    def thread(a: Annotated[object, Depends(first)], b: Annotated[object, Depends(second)]) -> object:
        return does() or [a, b]

    return [fn for fn in (task, thread) if fn.__name__ in kinds]


def value(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


async def outcome_of(fn, payload=None, **options):
    async with running(fn, **options) as (source, runner):
        outcome = await source.outcome(source.add(fn.__name__, payload))
        assert runner.busy == 0
        return outcome


@pytest.mark.parametrize("kind", [0, 1])
async def test_they_are_made_in_order_and_left_in_reverse(kind):
    steps = Steps()
    fn = handlers_with(steps.sync("one"), steps.sync("two"))[kind]
    assert value(await outcome_of(fn)) == ["one", "two"]
    assert steps == ["open one", "open two", "close two", "close one"]


async def test_a_coroutine_may_have_them_of_every_style():
    steps = Steps()

    def plain():
        return "plain"

    async def awaited():
        await asyncio.sleep(0)
        return "awaited"

    @contextmanager
    def managed():
        yield "managed"
        steps.append("close managed")

    @asynccontextmanager
    async def managed_async():
        yield "managed_async"
        steps.append("close managed_async")

    class Made:
        def __call__(self):
            return "called"

    def keyed(a, ctx: JobContext):
        return {"a": a}

    @handler
    async def all_of_them(
        a: Annotated[str, Depends(plain)],
        b: Annotated[str, Depends(awaited)],
        c: Annotated[str, Depends(managed)],
        d: Annotated[str, Depends(managed_async)],
        e: Annotated[str, Depends(steps.sync("sync"))],
        f: Annotated[str, Depends(steps.asynchronous("async"))],
        g: Annotated[str, Depends(Made())],
        h: Annotated[str, Depends(partial(keyed, a=1))],
    ) -> list[object]:
        return [a, b, c, d, e, f, g, h]

    made = value(await outcome_of(all_of_them))
    assert made == ["plain", "awaited", "managed", "managed_async", "sync", "async", "called", {"a": 1}]
    assert steps[-4:] == ["close async", "close sync", "close managed_async", "close managed"]


@pytest.mark.parametrize("kind", ["sync", "asynchronous"])
async def test_they_are_made_once_for_each_attempt_however_many_ask(kind):
    steps = Steps()
    root = getattr(steps, kind)("root")

    def left(root: Annotated[str, Depends(root)], ctx: JobContext):
        return f"{root} left of {ctx.id}"

    def right(ctx, left: Annotated[str, Depends(left)], root: Annotated[str, Depends(root)], unused: int = 3):
        return f"{root} right of {ctx.attempt} beside {left}"

    @handler
    async def both(l: Annotated[str, Depends(left)], r: Annotated[str, Depends(right)]) -> list[str]:  # noqa: E741
        return [l, r]

    async with running(both) as (source, _):
        for _ in range(2):
            job = source.add("both", attempt=2)
            of = f"root left of {job}"
            assert value(await source.outcome(job)) == [of, f"root right of 2 beside {of}"]
    assert steps == ["open root", "close root"] * 2


async def test_a_class_is_made_of_its_own_dependencies():
    class Settings:
        def __init__(self, *, ctx: JobContext):
            self.queue = ctx.queue

    class Store:
        def __init__(self, settings: Annotated[Settings, Depends()]):
            self.settings = settings

    @handler
    def uses(store: Annotated[Store, Depends]) -> str:
        return store.settings.queue

    assert value(await outcome_of(uses)) == "default"


async def test_they_are_no_part_of_the_payload():
    @handler
    async def model(point: Point, a: Annotated[int, Depends(lambda: 1)], ctx: JobContext) -> list[int]:
        return [point.x, a, ctx.attempt]

    @handler
    def keywords(x: int, a: Annotated[int, Depends(lambda: 1)] = 9, *, y: int = 2) -> list[int]:
        return [x, a, y]

    @handler
    def blob(data: bytes, a: Annotated[int, Depends(lambda: 1)]) -> int:
        return len(data) + a

    registry = Registry()
    registry.include(model, keywords, blob)
    schemas = {info.name: info.payload_schema and json.loads(info.payload_schema) for info in registry.types()}
    assert list(schemas["model"]["properties"]) == ["x"]
    assert list(schemas["keywords"]["properties"]) == ["x", "y"]
    assert schemas["blob"] is None
    assert value(await outcome_of(model, {"x": 5})) == [5, 1, 1]
    assert value(await outcome_of(keywords, {"x": 5})) == [5, 1, 2]
    assert (await outcome_of(keywords, {"x": 5, "a": 7})).failure.reason == "INVALID_PAYLOAD"


@pytest.mark.parametrize("kind", [0, 1])
async def test_nothing_is_made_for_a_payload_that_does_not_fit(kind):
    steps = Steps()
    fn = handlers_with(steps.sync("one"))[kind]
    assert (await outcome_of(fn, {"extra": 1})).failure.reason == "INVALID_PAYLOAD"
    assert steps == []


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("raised", [ValueError("x"), RetryIn(3), SystemExit(1)])
async def test_they_see_what_the_handler_raised(kind, raised):
    steps = Steps()

    def fails():
        raise raised

    fn = handlers_with(steps.sync("one"), steps.sync("two"), does=fails)[kind]
    outcome = await outcome_of(fn)
    assert isinstance(outcome, Failed)
    name = type(raised).__name__
    assert steps == ["open one", "open two", f"two saw {name}", f"one saw {name}"]


@pytest.mark.parametrize("style", ["sync", "asynchronous"])
async def test_one_that_swallows_a_failure_changes_nothing(style):
    steps = Steps()

    def fails():
        raise ValueError("x")

    (fn,) = handlers_with(
        getattr(steps, style)("outer"), getattr(steps, style)("inner", swallows=True), does=fails, kinds=["task"]
    )
    outcome = await outcome_of(fn)
    assert outcome.failure.reason == "VALUE_ERROR"
    assert "outer saw ValueError" in steps, "and those around it know"


@pytest.mark.parametrize("style", ["sync", "asynchronous"])
async def test_one_that_fails_at_its_end_fails_the_attempt(style):
    steps = Steps()
    (fn,) = handlers_with(
        getattr(steps, style)("outer"), getattr(steps, style)("inner", fails_at_end=True), kinds=["task"]
    )
    outcome = await outcome_of(fn)
    assert (outcome.failure.reason, outcome.failure.message) == ("OS_ERROR", "OSError: inner cannot be closed")
    assert steps[-1] == "outer saw OSError"


async def test_one_that_cannot_be_made_fails_the_attempt_and_leaves_the_others():
    steps = Steps()

    def broken():
        raise ConnectionError("no database")

    for fn in handlers_with(steps.sync("one"), broken):
        assert (await outcome_of(fn)).failure.reason == "CONNECTION_ERROR"
    assert steps == ["open one", "one saw ConnectionError"] * 2


@pytest.mark.parametrize("kind", [0, 1])
async def test_they_see_that_a_result_is_refused(kind):
    steps = Steps()
    fn = handlers_with(steps.sync("one"), does=lambda: float("nan"))[kind]
    assert (await outcome_of(fn)).failure.reason == "RESULT_INVALID"
    assert "one saw ResultRefused" in steps


async def test_the_result_is_written_before_they_are_left():
    closed = []

    class Lazy(dict):
        def items(self):
            assert not closed
            return super().items()

    def session():
        yield
        closed.append(1)

    for fn in handlers_with(session, does=lambda: Lazy(a=1)):
        closed.clear()
        assert value(await outcome_of(fn)) == {"a": 1}
        assert closed == [1]


async def test_the_outcome_is_reported_after_they_were_left():
    gate = threading.Event()
    waiting = threading.Event()

    def slow():
        yield
        waiting.set()
        gate.wait(BOUND)

    (fn,) = handlers_with(slow, kinds=["thread"])
    async with running(fn) as (source, runner):
        job = source.add("thread")
        await source.until(waiting.is_set)
        assert runner.busy == 1
        assert job not in source.outcomes
        gate.set()
        assert isinstance(await source.outcome(job), Succeeded)


async def test_a_cancelled_job_cleans_up():
    steps = Steps()

    @handler
    async def waits(one: Annotated[str, Depends(steps.asynchronous("one"))], ctx: JobContext) -> None:
        ctx.info("begun")
        await asyncio.Event().wait()

    async with running(waits) as (source, _):
        job = source.add("waits")
        await source.said(job, "begun")
        source.stop(job)
        assert await source.outcome(job) == Stopped()
    assert steps == ["open one", "one saw CancelledError"]


async def test_a_stop_cuts_a_clean_up():
    async def slow(ctx: JobContext):
        try:
            yield
        finally:
            ctx.info("cleaning")
            await asyncio.Event().wait()

    (fn,) = handlers_with(slow, kinds=["task"])
    clock = ManualClock()
    async with running(fn, clock=clock, cancel_grace=7) as (source, runner):
        job = source.add("task")
        await source.said(job, "cleaning")
        source.stop(job)
        assert await source.outcome(job) == Stopped()
        await source.until(lambda: runner.busy == 0)


async def test_a_process_has_them_too(tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    monkeypatch.setenv("KIT_NOTES", str(notes))
    async with running(kit_handlers.calculates, kit_handlers.database, processes=1) as (source, _):
        good, bad = source.add("calculates", {"number": 4}), source.add("calculates", {"number": -4})
        result = value(await source.outcome(good))
        assert (result["twice"], result["job"], result["state"]) == (8, good, ["database"])
        assert result["database"] == f"database of {result['pid']}"
        assert (await source.outcome(bad)).failure.reason == "VALUE_ERROR"
    told = [line for line in notes.read_text().splitlines() if "job" in line]
    assert told == [f"open {good}", f"commit {good}", f"open {bad}", f"rollback {bad} ValueError"]


def original():
    raise AssertionError("the real one")


async def test_another_one_may_stand_in():
    steps = Steps()

    def between(a: Annotated[str, Depends(original)]):
        return f"between {a}"

    for fn in handlers_with(between, original):
        registry = Registry(overrides={original: steps.sync("fake")})
        registry.add(fn)
        async with running(registry) as (source, _):
            assert value(await source.outcome(source.add(fn.__name__))) == ["between fake", "fake"]
    assert steps == ["open fake", "close fake"] * 2
