"""What `atlas_grpc.testing` offers to those who test handlers without a server."""

# No `from __future__ import annotations`: what stands in functions here is in no module for annotations to be found.

import asyncio
import contextvars
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import BaseModel

from atlas_grpc import Depends, FailNow, GiveBack, JobContext, Registry, RetryIn, errors, handler, lifespan, middleware
from atlas_grpc.model import Content, Severity
from atlas_grpc.testing import FakeClock, fake_context, run_handler, run_handler_sync
from atlas_grpc.worker.problems import InvalidHandler, LifespanFailed, NotAHandler
from tests.unit.worker import kit_handlers

BOUND = 15


class Resize(BaseModel):
    width: int


@dataclass
class Size:
    pixels: int


@handler(queue="images", retry={"max_attempts": 2, "initial_backoff": 4, "non_retryable": ["KEY_ERROR"]})
async def resize(args: Resize, ctx: JobContext) -> Size:
    ctx.info(f"attempt {ctx.attempt} of {ctx.max_attempts} in {ctx.queue}")
    for step in range(3):
        ctx.progress(step + 1, 3, f"step {step}")
        await ctx.sleep(60)
    return Size(args.width**2)


@handler(retry={"max_attempts": 3, "initial_backoff": 4, "multiplier": 3, "non_retryable": ["KEY_ERROR"]})
def ends(how: str, *, ctx: JobContext) -> None:
    match how:
        case "fail":
            raise FailNow("never", reason="NO_USE")
        case "retry":
            raise RetryIn(1.5)
        case "back":
            raise GiveBack(2)
        case "exit":
            raise SystemExit(3)
        case "key":
            raise KeyError
    raise ValueError("wrong")


async def test_a_success():
    run = await run_handler(resize, {"width": 4})
    assert (run.state, run.outcome, run.result) == ("SUCCESS", "SUCCEEDED", {"pixels": 16})
    assert (run.error, run.exception, run.retry_in) == (None, None, None)
    assert [(one.current, one.total, one.message) for one in run.progress][1:] == [(2, 3, "step 1"), (3, 3, "step 2")]
    assert [(one.severity, one.message) for one in run.logs] == [(Severity.INFO, "attempt 1 of 2 in images")]


def test_in_a_plain_test():
    assert run_handler_sync(resize, Resize(width=4)).result == {"pixels": 16}


@pytest.mark.parametrize(
    ("how", "attempt", "expected"),
    [
        ("fail", 1, ("FAILED", "FAILED", "NO_USE", None)),
        ("retry", 1, ("PENDING", "FAILED", "RETRY_REQUESTED", 1.5)),
        ("back", 1, ("PENDING", "RELEASED", None, 2)),
        ("back", 3, ("PENDING", "RELEASED", None, 2)),
        ("exit", 1, ("PENDING", "FAILED", "SYSTEM_EXIT", 4)),
        ("value", 1, ("PENDING", "FAILED", "VALUE_ERROR", 4)),
        ("value", 2, ("PENDING", "FAILED", "VALUE_ERROR", 12)),
        ("value", 3, ("FAILED", "FAILED", "VALUE_ERROR", None)),
        ("key", 1, ("FAILED", "FAILED", "KEY_ERROR", None)),
    ],
)
async def test_what_would_become_of_the_job(how, attempt, expected):
    run = await run_handler(ends, {"how": how}, ctx=fake_context(attempt=attempt))
    assert (run.state, run.outcome, run.error and run.error.reason, run.retry_in) == expected
    assert run.exception is not None
    assert run.result is None


async def test_the_exception_itself_is_there():
    run = await run_handler(ends, {"how": "value"})
    assert isinstance(run.exception, ValueError)
    assert run.exception.__traceback__ is not None
    assert run.error.message == "ValueError: wrong"


@pytest.mark.parametrize(
    ("payload", "field"),
    [({"width": "4"}, "payload.width"), ({}, "payload.width"), ("text", "payload"), ({"width": object()}, "payload")],
)
async def test_a_payload_that_a_server_would_refuse_is_refused(payload, field):
    with pytest.raises(errors.InvalidArgument) as caught:
        await run_handler(resize, payload)
    assert caught.value.violations[0].field == field


async def test_what_a_server_would_not_admit_is_refused_both_ways():
    deep: object = 1
    for _ in range(30):
        deep = [deep]

    @handler
    async def any_value(value: object) -> object:
        return deep

    with pytest.raises(errors.InvalidArgument, match="nested deeper"):
        await run_handler(any_value, {"value": deep})
    assert (await run_handler(any_value, {"value": 1})).error.reason == "RESULT_INVALID"


async def test_bytes_go_in_and_out():
    @handler
    def reverse(data: bytes) -> bytes:
        return data[::-1]

    assert (await run_handler(reverse, b"abc")).result == b"cba"
    assert (await run_handler(reverse, Content(b"abc", "text/plain"))).result == b"cba"


async def test_no_payload_is_an_empty_object():
    @handler
    def nothing() -> int:
        return 7

    assert (await run_handler(nothing)).result == 7


async def test_the_handler_sees_the_tests_context_variables():
    variable = contextvars.ContextVar("variable", default=0)

    @handler
    def thread() -> list[object]:
        return [variable.get(), threading.current_thread() is threading.main_thread()]

    @handler
    async def task() -> list[object]:
        return [variable.get(), threading.current_thread() is threading.main_thread()]

    variable.set(5)
    assert (await run_handler(thread)).result == [5, False]
    assert (await run_handler(task)).result == [5, True]


# Cancellation


@handler
async def waits(ctx: JobContext) -> None:
    ctx.progress(1)
    await asyncio.Event().wait()


@handler
def thread_waits(ctx: JobContext) -> None:
    ctx.progress(1)
    assert ctx.wait_cancelled()


@pytest.mark.parametrize("fn", [waits, thread_waits])
async def test_a_handler_is_cancelled_by_its_context(fn):
    ctx = fake_context()
    running = asyncio.create_task(run_handler(fn, ctx=ctx))
    async with asyncio.timeout(BOUND):
        while not ctx.reports:  # noqa: ASYNC110 - threads report too
            await asyncio.sleep(0.001)
        ctx.cancel()
        run = await running
    assert run.outcome == ("CANCELLED" if fn is waits else "SUCCEEDED")
    assert run.state == ("CANCELLED" if fn is waits else "SUCCESS")


async def test_a_context_may_be_cancelled_from_the_beginning():
    ctx = fake_context()
    ctx.cancel()
    run = await run_handler(waits, ctx=ctx)
    assert (run.state, run.outcome, run.retry_in) == ("CANCELLED", "CANCELLED", None)


@pytest.mark.parametrize("fn", [waits, thread_waits])
async def test_a_test_that_gives_up_stops_the_handler(fn):
    ctx = fake_context()
    running = asyncio.create_task(run_handler(fn, ctx=ctx))
    async with asyncio.timeout(BOUND):
        while not ctx.reports:  # noqa: ASYNC110 - threads report too
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert ctx.cancelled


# Dependencies, middleware, lifespans


def get_name():
    raise AssertionError("the real one")


@handler
async def greets(name: Annotated[str, Depends(get_name)], ctx: JobContext) -> str:
    return f"{ctx.state.get('greeting', 'hello')} {name}"


@middleware
async def shouts(ctx: JobContext, call_next) -> str:
    return (await call_next()).upper()


@lifespan
async def politely():
    yield {"greeting": "good morning"}


def fake_name():
    return "ada"


FAKE = {get_name: fake_name}


async def test_dependencies_are_made_and_overridden():
    assert (await run_handler(greets)).error.reason == "ASSERTION_ERROR"
    assert (await run_handler(greets, overrides=FAKE)).result == "hello ada"


async def test_what_is_included_applies():
    run = await run_handler(greets, overrides=FAKE, include=[shouts, politely])
    assert run.result == "GOOD MORNING ADA"


async def test_a_state_of_the_test_wins():
    ctx = fake_context(state={"greeting": "hi"})
    assert (await run_handler(greets, overrides=FAKE, include=[politely], ctx=ctx)).result == "hi ada"
    assert (await greets("ada", ctx=ctx)) == "hi ada"


async def test_a_registry_or_a_module_can_be_included(tmp_path, monkeypatch):
    registry = Registry()
    registry.middleware(types=["mine"])(shouts)

    @registry.handler(name="mine")
    def unmarked() -> str:
        return "quiet"

    assert (await run_handler(unmarked, include=[registry])).result == "QUIET"
    with pytest.raises(NotAHandler):
        await run_handler(unmarked)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "common.py").write_text(
        "from atlas_grpc import middleware\n"
        "@middleware\nasync def doubles(ctx, call_next):\n    return 2 * await call_next()\n"
    )
    run = await run_handler(greets, overrides=FAKE, include=[str(tmp_path / "common.py")])
    assert run.result == "hello adahello ada"


async def test_a_middleware_that_converts():
    @middleware
    async def converts(ctx, call_next):
        try:
            return await call_next()
        except ValueError as exc:
            raise FailNow("no", reason="CONVERTED") from exc

    run = await run_handler(ends, {"how": "value"}, include=[converts])
    assert (run.state, run.error.reason, type(run.exception)) == ("FAILED", "CONVERTED", FailNow)


async def test_a_lifespan_that_fails_is_told():
    @lifespan
    async def broken():
        raise OSError("no database")
        yield

    with pytest.raises(LifespanFailed, match="OSError: no database"):
        await run_handler(greets, include=[broken])


async def test_a_handler_for_processes_runs_here(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_NOTES", str(tmp_path / "notes"))
    things = [kit_handlers.database, kit_handlers.model, kit_handlers.telling]
    run = await run_handler(kit_handlers.calculates, {"number": 2}, include=things)
    assert (run.result["twice"], run.result["state"]) == (4, ["database", "model"])
    assert [line.message for line in run.logs] == ["before", "after"]
    fake = {kit_handlers.get_session: lambda: kit_handlers.Session("fake", "none")}
    run = await run_handler(kit_handlers.calculates, {"number": 2}, overrides=fake)
    assert run.result["database"] == "fake"


async def test_what_is_no_handler_is_told():
    with pytest.raises(NotAHandler):
        await run_handler(fake_name)
    async_fake = {get_name: waits}

    def plain(name: Annotated[str, Depends(get_name)]): ...

    with pytest.raises(InvalidHandler, match="is asynchronous"):
        await run_handler(handler(plain), overrides=async_fake)


# A context by itself


async def test_a_handler_is_called_with_a_context():
    ctx = fake_context(id="j", labels={"a": "b"}, time_left=200)
    size = await resize(Resize(width=3), ctx)
    assert size == Size(9)
    assert [one.current for one in ctx.reports] == [1, 2, 3]
    assert ctx.lines[0].message == "attempt 1 of 3 in default"
    assert 19 < ctx.time_left() <= 20, "it slept for three minutes, which took no time"
    assert (ctx.id, ctx.labels, ctx.cancelled, ctx.wait_cancelled(30)) == ("j", {"a": "b"}, False, False)
    assert ctx.time_left() == 0
    ctx.cancel()
    assert ctx.wait_cancelled(30)


async def test_a_clock_of_the_test_is_kept_to():
    clock = FakeClock()
    ctx = fake_context(clock=clock, time_left=100)
    running = asyncio.create_task(resize(Resize(width=3), ctx))
    await clock.advance(60)
    assert [one.current for one in ctx.reports] == [1, 2]
    assert ctx.time_left() == 40
    await clock.advance(120)
    assert (await running) == Size(9)


def test_more_lines_than_a_worker_would_hold_are_kept():
    ctx = fake_context()
    for number in range(3000):
        ctx.info(f"line {number}")
    assert len(ctx.lines) == 3000


def test_it_needs_no_grpc():
    program = """
import sys
from atlas_grpc.testing import fake_context, run_handler_sync
print(*sorted({"grpc", "google.protobuf"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
