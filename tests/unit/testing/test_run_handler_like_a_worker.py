"""`run_handler` does what a worker would do."""

# No `from __future__ import annotations`: what stands in functions here is in no module for annotations to be found.

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from atlas_grpc import JobContext, RetryIn, errors, handler, lifespan, middleware
from atlas_grpc.testing import fake_context, run_handler
from tests.unit.worker.memory_source import BOUND
from tests.unit.worker.test_middleware_results import RETURNED, passes


@pytest.mark.parametrize(("fn", "expected"), RETURNED)
@pytest.mark.parametrize("include", [[], [passes]])
async def test_a_result_is_made_json_once_before_the_clean_up(fn, expected, include):
    assert (await run_handler(fn, include=include)).result == expected


async def test_a_result_that_a_middleware_changed_in_place_is_the_result():
    @handler
    async def makes() -> dict[str, int]:
        return {"made": 1}

    @middleware
    async def adds(ctx, call_next):
        result = await call_next()
        result["added"] = 2
        return result

    assert (await run_handler(makes, include=[adds])).result == {"made": 1, "added": 2}


@handler(name="shop.pay", queue="money", retry={"max_attempts": 2})
def pays(*, ctx: JobContext) -> None:
    raise ConnectionError(f"{ctx.type} in {ctx.queue}, attempt {ctx.attempt} of {ctx.max_attempts}")


async def test_what_a_context_does_not_say_is_as_the_handler_declares():
    ctx = fake_context(attempt=2)
    run = await run_handler(pays, ctx=ctx)
    assert run.state == "FAILED", "the second attempt is the last"
    assert str(run.exception) == "shop.pay in money, attempt 2 of 2"

    @handler
    def other() -> None:
        raise ConnectionError

    run = await run_handler(other, ctx=ctx)
    assert (run.state, ctx.type, ctx.queue, ctx.max_attempts) == ("PENDING", "other", "default", 3)


async def test_what_a_context_says_is_so():
    ctx = fake_context(attempt=2, type="handler", queue="default", max_attempts=3)
    run = await run_handler(pays, ctx=ctx)
    assert (run.state, str(run.exception)) == ("PENDING", "handler in default, attempt 2 of 3")


async def test_middleware_sees_the_type_of_the_handler():
    @middleware
    async def tells(ctx, call_next):
        return ctx.type

    assert (await run_handler(pays, ctx=fake_context(), include=[tells])).result == "shop.pay"


async def test_a_context_that_is_used_again_has_the_state_of_its_own_run():
    runs = []

    @lifespan
    async def counted():
        runs.append(1)
        yield {"run": len(runs)}

    @handler
    async def tells(ctx: JobContext) -> dict[str, object]:
        return dict(ctx.state)

    ctx = fake_context(state={"mine": True})
    for number in (1, 2):
        assert (await run_handler(tells, ctx=ctx, include=[counted])).result == {"mine": True, "run": number}
    assert dict(ctx.state) == {"mine": True}


# Handlers in processes


@lifespan
async def in_worker():
    yield {"pool": 1}


@lifespan
def in_both():
    yield {"both": 1}


@lifespan(where="process")
def in_process():
    yield {"model": 1}


LIFESPANS = [in_worker, in_both, in_process]


@dataclass
class Times:
    at: datetime


@handler(executor="process")
def tells_state(*, ctx: JobContext) -> list[str]:
    return sorted(ctx.state)


@handler(executor="process")
def times() -> Times:
    return Times(datetime(2024, 1, 2, tzinfo=UTC))


@handler(executor="process", retry={"max_attempts": 3})
def ends(how: str) -> None:
    match how:
        case "retry":
            raise RetryIn(1.5, "later")
        case "value":
            raise ValueError("wrong")


@handler(executor="process")
def waits(*, ctx: JobContext) -> None:
    ctx.progress(1)
    assert ctx.wait_cancelled()
    ctx.raise_if_cancelled()


async def test_a_process_and_the_middleware_around_it_have_lifespans_of_their_own():
    @middleware
    async def compares(ctx, call_next):
        before = sorted(ctx.state)
        return [before, await call_next(), sorted(ctx.state)]

    run = await run_handler(tells_state, include=[*LIFESPANS, compares])
    worker, process = ["both", "pool"], ["both", "model"]
    assert run.result == [worker, process, worker]
    assert (await run_handler(tells_state, include=LIFESPANS)).result == process
    own = fake_context(state={"mine": 1})
    run = await run_handler(tells_state, include=[*LIFESPANS, compares], ctx=own)
    assert run.result == [sorted([*worker, "mine"]), sorted([*process, "mine"]), sorted([*worker, "mine"])]


async def test_middleware_is_answered_the_json_of_a_process():
    seen = []

    @middleware
    async def sees(ctx, call_next):
        seen.append(await call_next())
        return seen[0]

    assert (await run_handler(times, include=[sees])).result == {"at": "2024-01-02T00:00:00Z"}
    assert seen == [{"at": "2024-01-02T00:00:00Z"}]


@pytest.mark.parametrize(
    ("how", "raised", "is_told", "expected"),
    [
        ("value", ValueError, errors.HandlerFailed, ("VALUE_ERROR", "ValueError: wrong")),
        ("retry", RetryIn, RetryIn, ("RETRY_REQUESTED", "later")),
    ],
)
async def test_middleware_is_told_what_a_process_tells(how, raised, is_told, expected):
    seen = []

    @middleware
    async def sees(ctx, call_next):
        try:
            return await call_next()
        except Exception as exc:
            seen.append(exc)
            raise

    plain = await run_handler(ends, {"how": how})
    run = await run_handler(ends, {"how": how}, include=[sees])
    assert ([type(one) for one in seen], seen[0].reason, seen[0].message) == ([is_told], *expected)
    assert (run.error, run.state, run.retry_in) == (plain.error, plain.state, plain.retry_in)
    assert (type(run.exception), type(plain.exception)) == (raised, raised), "the test sees what the handler raised"


@pytest.mark.parametrize("include", [[], [passes]])
@pytest.mark.parametrize("by", ["context", "test"])
async def test_a_handler_for_processes_is_stopped(include, by):
    ctx = fake_context()
    running = asyncio.create_task(run_handler(waits, ctx=ctx, include=include))
    async with asyncio.timeout(BOUND / 2):
        while not ctx.reports:  # noqa: ASYNC110 - a thread reports
            await asyncio.sleep(0.001)
        if by == "context":
            ctx.cancel()
            assert (await running).state == "CANCELLED"
        else:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert ctx.cancelled
