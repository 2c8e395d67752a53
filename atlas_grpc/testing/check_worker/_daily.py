"""What a worker does day by day."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ...client import Logged
from ._kit import broken, check, expect
from ._world import LEASE, MARGIN

if TYPE_CHECKING:
    from ._world import World

_MANY = 12
_LARGEST = 4_000
_TEXT = 'ä "\\ \n\t{}[]$(echo)`\u2028'
_VALUES: list[Any] = [None, True, 0, -1.5, 2**53 - 1, "", _TEXT, [], {}, {"a": [{"b": None}, "c d"]}]


@check()
async def takes_jobs(world: World) -> None:
    """A worker announces its types, takes a job, and the job succeeds in its first attempt."""
    job = await world.finished(await world.submit("check.echo", {"value": 1}))
    expect(job.state.name, "SUCCESS", "the state of the job")
    expect(await world.attempts(job), ["SUCCEEDED"], "its attempts")


@check()
async def returns_results(world: World) -> None:
    """Whoever submitted the job gets the result that the handler returned, whatever JSON it is."""
    for value in _VALUES:
        job = await world.finished(await world.submit("check.echo", {"value": value}))
        expect(job.state.name, "SUCCESS", f"the state of a job that echoes {value!r}")
        expect(job.output, value, "the result of check.echo")


@check()
async def executes_each_once(world: World) -> None:
    """Jobs that wait together are executed each, and each once."""
    jobs = [await world.submit("check.echo", {"value": number}) for number in range(_MANY)]
    for number, job in enumerate(jobs):
        expect((await world.finished(job)).output, number, "the result of check.echo")
        expect(await world.attempts(job), ["SUCCEEDED"], "the attempts of a job")


@check("concurrency")
async def executes_several(world: World) -> None:
    """A worker that has room for several jobs does not make one wait for another."""
    first = await world.tick(4)
    second = await world.tick(0.5)
    if "end" in first.lines():
        broken("the second job began only after the first had ended")
    for ticking in (first, second):
        expect((await world.finished(ticking.job)).state.name, "SUCCESS", "the state of the job")


@check("progress")
async def reports_progress(world: World) -> None:
    """People see how far a job is only if its worker says so, the last word too."""
    job = await world.finished(await world.submit("check.steps", {"steps": 3}))
    shown = job.progress
    if shown is None:
        broken("there is no progress")
    expect((shown.current, shown.total, shown.message), (3, 3, "step 3"), "the last progress")


@check("logs")
async def hands_in_logs(world: World) -> None:
    """Log lines arrive, each once and in order, before the job ends."""
    job = await world.submit("check.steps", {"steps": 3})
    await world.finished(job)
    lines = [event.message async for event in job.watch() if isinstance(event, Logged)]
    expect([line for line in lines if line.startswith("step ")], ["step 1", "step 2", "step 3"], "the log of the job")


@check()
async def fails_and_is_tried_again(world: World) -> None:
    """A failure comes with its reason and message, and is left to the retry policy."""
    payload = {"reason": "DISK_FULL", "message": "no room ä \"'$", "final": False}
    job = await world.finished(
        await world.submit("check.fail", payload, max_attempts=2, initial_backoff=0.05, jitter=0)
    )
    expect(await world.attempts(job), ["FAILED", "FAILED"], "the attempts of a job that fails")
    _expect_failed(job.error, payload)


@check()
async def fails_for_good(world: World) -> None:
    """A failure that no attempt can mend must not be tried again."""
    payload = {"reason": "NO_SUCH_USER", "message": "who?", "final": True}
    job = await world.finished(await world.submit("check.fail", payload, max_attempts=5, initial_backoff=0.05))
    expect(await world.attempts(job), ["FAILED"], "the attempts of a job that fails for good")
    _expect_failed(job.error, payload)


def _expect_failed(error: object, payload: dict[str, object]) -> None:
    expect(getattr(error, "reason", None), payload["reason"], "the reason of the job's error")
    message = str(getattr(error, "message", ""))
    if str(payload["message"]) not in message:
        broken(f"the message of the job's error is {message!r}, without {payload['message']!r}")


@check(max_result_bytes=_LARGEST)
async def reports_otherwise_what_is_refused(world: World) -> None:
    """A report that the server refuses leaves the job with the worker, which has to say something else about it."""
    job = await world.finished(await world.submit("check.echo", {"value": "x" * 2 * _LARGEST}, max_attempts=1))
    expect(job.state.name, "FAILED", "the state of a job whose result is too large")
    expect(await world.attempts(job), ["FAILED"], "its attempts")
    await world.works()


@check()
async def beats(world: World) -> None:
    """A worker that is heard of keeps its jobs, however long they take."""
    ticking = await world.tick(2 * LEASE)
    job = await world.finished(ticking.job)
    expect(await world.attempts(job), ["SUCCEEDED"], f"the attempts of a job that takes {2 * LEASE:g} s")
    expect(ticking.lines()[-1], "end", "the last line of check.tick")
    ticking.expect_executed_once()


@check()
async def stops_when_cancelled(world: World) -> None:
    """Who cancels a job wants it to stop, and to know when it has: the worker stops it and then says so."""
    ticking = await world.tick(60)
    await ticking.job.cancel()
    job = await world.finished(ticking.job)
    expect(job.state.name, "CANCELLED", "the state of a job that is cancelled")
    await ticking.quiet_after(time.time() + MARGIN, "after the worker had said that it had stopped it")
    await world.works()


@check()
async def stops_when_time_is_up(world: World) -> None:
    """The server ends an attempt at its timeout; a worker that goes on works for nobody."""
    ticking = await world.tick(60, attempt_timeout=2, max_attempts=1)
    job = await world.finished(ticking.job)
    expect(await world.attempts(job), ["TIMED_OUT"], "the attempts of a job whose time was up")
    await ticking.quiet_after(time.time() + LEASE, "after its time was up")
    await world.works()


@check()
async def waits_for_work(world: World) -> None:
    """A worker without jobs is ready whenever one comes."""
    await asyncio.sleep(1.5 * LEASE)
    await world.works()
