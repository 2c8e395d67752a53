"""Middleware around handlers in processes of their own."""

from __future__ import annotations

import pytest

from atlas_grpc.errors import FailNow, HandlerFailed
from atlas_grpc.model import Content, Stopped, Succeeded
from atlas_grpc.worker import middleware
from tests.unit.worker import kit_handlers
from tests.unit.worker.around import Seen, quick, value
from tests.unit.worker.memory_source import running


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
