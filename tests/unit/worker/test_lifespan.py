"""Lifespans: entered before the first job, left after the last one, told when they fail."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar

import pytest

from atlas_grpc.model import Succeeded
from atlas_grpc.worker import JobContext, Registry, Runner, handler, lifespan
from atlas_grpc.worker.problems import InvalidHandler, LifespanFailed
from tests.unit.worker import kit_handlers
from tests.unit.worker.memory_source import BOUND, MemorySource, running

VARIABLE = ContextVar("VARIABLE", default="")


@handler
async def state(ctx: JobContext) -> dict[str, str]:
    return dict(ctx.state)


@handler
def state_in_thread(ctx: JobContext) -> dict[str, str]:
    return dict(ctx.state)


@handler
async def waits(ctx: JobContext) -> None:
    ctx.info("begun")
    await asyncio.Event().wait()


class Steps(list):
    """What happened, and lifespans that tell."""

    def sync(self, name, yields=None, fails_at=""):
        @lifespan
        def life():
            if fails_at == "start":
                raise OSError(f"{name} is not there")
            self.append(f"enter {name}")
            yield yields
            self.append(f"leave {name}")
            if fails_at == "end":
                raise OSError(f"{name} is gone")

        life.__qualname__ = name
        return life

    def asynchronous(self, name, yields=None, fails_at=""):
        @lifespan
        async def life():
            await asyncio.sleep(0)
            if fails_at == "start":
                raise OSError(f"{name} is not there")
            self.append(f"enter {name}")
            yield yields
            await asyncio.sleep(0)
            self.append(f"leave {name}")
            if fails_at == "end":
                raise OSError(f"{name} is gone")

        life.__qualname__ = name
        return life


def value(outcome):
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result.data)


async def test_they_live_around_all_jobs():
    steps = Steps()

    class Watched(MemorySource):
        async def open(self, *arguments):
            steps.append("open")
            await super().open(*arguments)

        async def finish(self, reports):
            steps.append("finish")
            return await super().finish(reports)

        async def close(self):
            steps.append("close")
            await super().close()

    async with running(state, steps.sync("one"), steps.asynchronous("two"), source=Watched()) as (source, _):
        await source.outcome(source.add("state"))
    assert steps == ["enter one", "enter two", "open", "finish", "close", "leave two", "leave one"]


async def test_what_they_yield_is_the_state():
    steps = Steps()
    lives = [steps.sync("one", {"a": "1"}), steps.asynchronous("two", {"b": "2"}), steps.sync("three")]
    async with running(state, state_in_thread, *lives) as (source, _):
        for name in ("state", "state_in_thread"):
            assert value(await source.outcome(source.add(name))) == {"a": "1", "b": "2"}


async def test_the_state_cannot_be_changed():
    @handler
    async def changes(ctx: JobContext) -> None:
        ctx.state["a"] = 1

    async with running(changes) as (source, _):
        assert (await source.outcome(source.add("changes"))).failure.reason == "TYPE_ERROR"


async def test_they_are_left_after_a_drain_has_given_jobs_back():
    steps = Steps()
    async with running(waits, steps.asynchronous("one")) as (source, runner):
        job = source.add("waits")
        await source.said(job, "begun")
        await runner.drain(0.01)
        assert steps == ["enter one", "leave one"]
        assert job in source.outcomes


async def test_a_cancelled_run_leaves_them():
    steps = Steps()
    registry = Registry()
    registry.include(waits, steps.asynchronous("one"))
    source = MemorySource()
    task = asyncio.create_task(Runner(registry, source).run())
    await source.said(source.add("waits"), "begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["enter one", "leave one"]


async def test_they_are_entered_and_left_in_one_task():
    @lifespan
    async def group():
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(asyncio.Event().wait())
            yield
            waiting.cancel()

    async with running(state, group) as (source, _):
        await source.outcome(source.add("state"))


# Failures


async def failed_run(*things):
    registry, source = Registry(), MemorySource()
    registry.include(state, *things)
    runner = Runner(registry, source)
    working = asyncio.create_task(runner.run())
    with pytest.raises(LifespanFailed) as first:
        await runner.ready()
    with pytest.raises(LifespanFailed) as second:
        await working
    assert first.value is second.value
    assert source.opened is None
    async with asyncio.timeout(1):
        await runner.drain(60)
        await runner.stop()
    return str(first.value)


async def test_one_that_fails_keeps_the_runner_from_its_start():
    for style in ("sync", "asynchronous"):
        steps = Steps()
        broken = getattr(steps, style)("broken", fails_at="start")
        said = await failed_run(steps.sync("one"), broken, steps.sync("never"))
        assert said == "lifespan broken failed: OSError: broken is not there"
        assert steps == ["enter one", "leave one"]


@pytest.mark.parametrize(
    ("yields", "problem"),
    [
        (3, "TypeError: it must yield nothing or a dict with names as keys, not a int"),
        ({1: 2}, "TypeError: it must yield nothing or a dict with names as keys, not a dict"),
        ({"a": 2, "b": 3}, "ValueError: another lifespan yields a too"),
    ],
)
async def test_what_cannot_be_a_state_is_a_failure(yields, problem):
    steps = Steps()
    said = await failed_run(steps.sync("one", {"a": 1}), steps.asynchronous("two", yields))
    assert said == f"lifespan two failed: {problem}"
    assert steps == ["enter one", "enter two", "leave two", "leave one"]


async def test_one_that_does_not_yield_is_a_failure():
    @lifespan
    def empty():
        return
        yield

    assert "generator didn't yield" in await failed_run(empty)


async def test_one_that_exits_is_a_failure():
    @lifespan
    def exits():
        raise SystemExit(3)
        yield

    assert "SystemExit: 3" in await failed_run(exits)


@pytest.mark.parametrize("style", ["sync", "asynchronous"])
async def test_one_that_fails_at_its_end_is_logged(style, caplog):
    steps = Steps()
    broken = getattr(steps, style)("broken", fails_at="end")
    async with running(state, steps.sync("one"), broken) as (source, _):
        await source.outcome(source.add("state"))
    assert steps == ["enter one", "enter broken", "leave broken", "leave one"]
    assert "lifespan broken failed at its end" in caplog.text
    assert "OSError: broken is gone" in caplog.text


async def test_one_that_does_not_end_is_cut(monkeypatch, caplog):
    monkeypatch.setattr("atlas_grpc.worker.lifespans.LEAVE_TIME", 0.05)
    steps = Steps()

    @lifespan
    async def endless():
        yield
        await asyncio.Event().wait()

    async with running(state, steps.sync("one"), endless) as (source, _):
        await source.outcome(source.add("state"))
    assert steps == ["enter one", "leave one"]
    assert "endless took too long to end" in caplog.text


async def test_a_stop_hurries_one_that_does_not_end(monkeypatch, caplog):
    monkeypatch.setattr("atlas_grpc.worker.lifespans.HURRIED_LEAVE_TIME", 0.05)
    leaving = asyncio.Event()

    @lifespan
    async def endless():
        yield
        leaving.set()
        await asyncio.Event().wait()

    async with running(state, endless) as (_, runner):
        await runner.ready()
        draining = asyncio.create_task(runner.drain(0))
        async with asyncio.timeout(5):
            await leaving.wait()
            await runner.stop()
            await draining
    assert "took too long to end" in caplog.text


async def test_a_stop_that_comes_when_its_time_is_up_is_no_failure(monkeypatch, caplog):
    monkeypatch.setattr("atlas_grpc.worker.lifespans.LEAVE_TIME", 0.05)
    cut, go_on = asyncio.Event(), asyncio.Event()

    @lifespan
    async def slow():
        yield
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
            await go_on.wait()

    async with running(state, slow) as (_, runner):
        await runner.ready()
        draining = asyncio.create_task(runner.drain(0))
        async with asyncio.timeout(5):
            await cut.wait()
            stopping = asyncio.create_task(runner.stop())
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(draining, stopping)
    assert "slow took too long to end" in caplog.text


class Stubborn:
    """Swallows any cancellation, at its start or at its end, until the test is over."""

    def __init__(self):
        self.at_work = asyncio.Event()
        self.over = asyncio.Event()

    async def work(self):
        self.at_work.set()
        while not self.over.is_set():
            with suppress(asyncio.CancelledError):
                await self.over.wait()

    async def let_go(self):
        """Ends the task that was given up."""
        self.over.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
async def stubborn(monkeypatch):
    monkeypatch.setattr("atlas_grpc.worker.lifespans.CUT_TIME", 0.05)
    one = Stubborn()
    yield one
    await one.let_go()


async def test_one_that_ignores_its_cancellation_at_its_end_is_given_up_and_the_others_are_left(
    stubborn, monkeypatch, caplog
):
    monkeypatch.setattr("atlas_grpc.worker.lifespans.LEAVE_TIME", 0.05)
    steps = Steps()

    @lifespan
    async def endless():
        yield
        await stubborn.work()

    async with running(state, steps.sync("one"), endless, steps.asynchronous("two"), endless) as (source, runner):
        await source.outcome(source.add("state"))
        async with asyncio.timeout(BOUND):
            await runner.drain(0)
    assert steps == ["enter one", "enter two", "leave two", "leave one"]
    assert caplog.text.count("endless ignores its cancellation: it is given up") == 1


async def test_a_stop_hurries_one_that_ignores_its_cancellation(stubborn, monkeypatch, caplog):
    monkeypatch.setattr("atlas_grpc.worker.lifespans.HURRIED_LEAVE_TIME", 0.05)

    @lifespan
    async def endless():
        yield
        await stubborn.work()

    async with running(state, endless) as (_, runner):
        await runner.ready()
        draining = asyncio.create_task(runner.drain(0))
        async with asyncio.timeout(5):
            await stubborn.at_work.wait()
            await runner.stop()
            await draining
    assert "given up" in caplog.text


@pytest.mark.parametrize("how", ["drain", "stop", "hurried", "cancel"])
async def test_one_that_ignores_its_cancellation_while_it_is_entered_is_given_up(how, stubborn, monkeypatch, caplog):
    name = "LEAVE_TIME" if how in ("drain", "cancel") else "HURRIED_LEAVE_TIME"
    monkeypatch.setattr(f"atlas_grpc.worker.lifespans.{name}", 0.05)
    steps = Steps()

    @lifespan
    async def endless():
        await stubborn.work()
        yield
        steps.append("left")

    registry, source = Registry(), MemorySource()
    registry.include(state, steps.asynchronous("one"), endless, steps.sync("never"))
    runner = Runner(registry, source)
    working = asyncio.create_task(runner.run())
    async with asyncio.timeout(5):
        await stubborn.at_work.wait()
        if how == "cancel":
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        else:
            draining = asyncio.create_task(runner.stop() if how == "stop" else runner.drain(60))
            await asyncio.sleep(0)
            if how == "hurried":
                await runner.stop()
            await asyncio.gather(draining, working)
        await runner.ready()
        assert steps == ["enter one", "leave one"]
        await stubborn.let_go()
    assert steps == ["enter one", "leave one", "left"]
    assert source.opened is None
    assert "endless ignores its cancellation: it is given up" in caplog.text


async def test_what_they_set_in_their_context_is_seen_by_handlers():
    @lifespan
    async def sets():
        token = VARIABLE.set("set")
        yield
        VARIABLE.reset(token)

    @handler
    async def reads() -> str:
        return VARIABLE.get()

    async with running(reads, sets) as (source, _):
        assert value(await source.outcome(source.add("reads"))) == "set"


async def test_the_end_may_come_while_they_are_entered():
    steps = Steps()
    entering = asyncio.Event()

    @lifespan
    async def slow():
        entering.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            steps.append("cut")

    registry, source = Registry(), MemorySource()
    registry.include(state, steps.sync("one"), slow)
    runner = Runner(registry, source)
    working = asyncio.create_task(runner.run())
    async with asyncio.timeout(BOUND):
        await entering.wait()
        await runner.drain(60)
        await working
        await runner.ready()
    assert steps == ["enter one", "cut", "leave one"]
    assert source.opened is None


async def test_one_that_begins_all_the_same_is_left_again():
    steps = Steps()
    entering = asyncio.Event()

    @lifespan
    async def swallows():
        entering.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("swallowed")
        yield
        steps.append("left")

    registry, source = Registry(), MemorySource()
    registry.include(state, swallows)
    runner = Runner(registry, source)
    working = asyncio.create_task(runner.run())
    async with asyncio.timeout(BOUND):
        await entering.wait()
        await runner.drain(60)
        await working
    assert steps == ["swallowed", "left"]
    assert source.opened is None


async def test_a_run_that_is_cancelled_while_they_are_entered_leaves_nothing():
    steps = Steps()
    entering = asyncio.Event()

    @lifespan
    async def slow():
        entering.set()
        await asyncio.Event().wait()
        yield

    registry = Registry()
    registry.include(state, steps.sync("one"), slow)
    runner = Runner(registry, MemorySource())
    working = asyncio.create_task(runner.run())
    async with asyncio.timeout(BOUND):
        await entering.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await runner.ready()
        await runner.drain(60)
    assert steps == ["enter one", "leave one"]


# What can be one


async def test_contextlib_makes_them_too():
    steps = Steps()

    @lifespan
    @contextmanager
    def managed():
        steps.append("enter")
        yield {"a": "1"}
        steps.append("leave")

    @asynccontextmanager
    @lifespan
    async def managed_async():
        yield {"b": "2"}

    async with running(state, managed, managed_async) as (source, _):
        assert value(await source.outcome(source.add("state"))) == {"a": "1", "b": "2"}
    assert steps == ["enter", "leave"]


def test_what_cannot_be_one_is_refused():
    def plain(): ...

    async def coroutine(): ...

    def needy(url):
        yield

    def fine():
        yield

    async def fine_async():
        yield

    for fn, where, why in (
        (plain, None, "must be a generator function"),
        (coroutine, None, "must be a generator function"),
        (needy, None, "must not need arguments"),
        (fine, "server", "where must be"),
        (fine_async, "process", "cannot be entered in processes"),
    ):
        with pytest.raises(InvalidHandler, match=why):
            lifespan(where=where)(fn)
        with pytest.raises(InvalidHandler, match=why):
            Registry().lifespan(where=where)(fn)


def test_one_is_entered_once_however_often_it_is_found():
    registry, other = Registry(), Registry()
    other.lifespan(kit_handlers.database)
    registry.include(kit_handlers.database, other)
    assert [one.name for one in registry.lifespans()] == ["database"]


def test_one_that_processes_cannot_find_is_refused_where_there_are_any():
    registry = Registry()
    registry.include(Steps().sync("<locals>.here"), state)
    assert registry.process_lifespans() == []
    registry.add(kit_handlers.times)
    with pytest.raises(InvalidHandler, match=r"lifespan <locals>\.here: .*top of its module"):
        Runner(registry, MemorySource())


# Processes


@pytest.fixture
def notes(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("KIT_NOTES", str(path))
    return lambda: [line.split() for line in path.read_text().splitlines() if "job" not in line]


async def test_each_process_enters_and_leaves_them(notes):
    things = (kit_handlers.calculates, kit_handlers.database, kit_handlers.model)
    async with running(*things, processes=2) as (source, _):
        results = [value(await source.outcome(source.add("calculates", {"number": 1}))) for _ in range(3)]
        assert {tuple(result["state"]) for result in results} == {("database", "model")}
        (pid,) = {str(result["pid"]) for result in results}
    ours = notes()[0][1]
    assert notes() == [
        ["enter", ours],
        ["enter", pid],
        ["load", pid],
        ["unload", pid],
        ["leave", pid],
        ["leave", ours],
    ]


async def test_an_idle_process_leaves_them(notes, monkeypatch):
    monkeypatch.setattr("atlas_grpc.worker.processes.IDLE_TIME", 0.05)
    async with running(kit_handlers.calculates, kit_handlers.database, processes=1) as (source, runner):
        result = value(await source.outcome(source.add("calculates", {"number": 1})))
        await source.until(lambda: not runner._children.pids)
        assert notes()[-1] == ["leave", str(result["pid"])]


async def test_one_that_fails_in_a_process_fails_the_attempt(notes, monkeypatch, caplog):
    monkeypatch.setenv("KIT_FAILS", "model")
    things = (kit_handlers.calculates, kit_handlers.database, kit_handlers.model)
    async with running(*things, processes=1) as (source, _):
        for _ in range(2):
            failed = await source.outcome(source.add("calculates", {"number": 1}))
            assert (failed.failure.reason, failed.retryable) == ("LIFESPAN_FAILED", True)
            assert failed.failure.message == "lifespan model failed"
    assert caplog.text.count("handler failed") == 2
    assert caplog.text.count("lifespan model failed: ConnectionError: no model\n") == 2
    assert caplog.text.count("in model\n") == 2
    ours, child = notes()[0][1], notes()[1][1]
    assert notes() == [["enter", ours], *[["enter", child], ["leave", child]] * 2, ["leave", ours]]
