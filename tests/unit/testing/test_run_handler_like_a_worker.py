"""`run_handler` does what a worker would do."""

# No `from __future__ import annotations`: what stands in functions here is in no module for annotations to be found.

import pytest

from atlas_grpc import JobContext, handler, lifespan, middleware
from atlas_grpc.testing import fake_context, run_handler
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
