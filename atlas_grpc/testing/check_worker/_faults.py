"""What a worker lives through: connections that are cut or silent, a pause, a server that knows nothing of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ._kit import check, expect
from ._world import LEASE, MARGIN

if TYPE_CHECKING:
    from typing import Unpack

    from ...client import SubmitOptions
    from ._world import Ticking, World

_AWAY = LEASE / 6
_SETTLES = LEASE / 10
_ASKS_IN = LEASE / 3
"""In this time a worker has heard that its report was taken, and asks for jobs."""


def _heal(world: World) -> None:
    for wire in world.wires:
        wire.cut()
        wire.open()


async def _acknowledged(world: World, seconds: float, **options: Unpack[SubmitOptions]) -> Ticking:
    """A job that ticks for so long from now on, and whose assignment was acknowledged meanwhile: else it would rightly
    go back when the connection breaks."""
    ticking = await world.tick(_SETTLES + seconds, **options)
    await asyncio.sleep(_SETTLES)
    return ticking


@check()
async def goes_on_after_a_cut(world: World) -> None:
    """A connection that breaks costs no attempt: the job goes on, and its result comes by the next connection."""
    ticking = await _acknowledged(world, LEASE)
    for wire in world.wires:
        wire.refuse()
    await asyncio.sleep(_AWAY)
    _heal(world)
    job = await world.finished(ticking.job)
    expect(await world.attempts(job), ["SUCCEEDED"], "the attempts of a job during which the connection was cut")
    ticking.expect_executed_once()
    await world.works()


@check()
async def asks_for_what_was_lost(world: World) -> None:
    """A job whose assignment never arrived is executed all the same. On the stream the server sees to that; where the
    answer of a LeaseJobs was lost, the next one has to say so (`return_others`), or to start a new session."""
    await world.works()
    await asyncio.sleep(_ASKS_IN)
    for wire in world.wires:
        wire.hold(answers_only=True)
    ticking = await world.ticking(0.5, max_attempts=2)
    await world.taken(ticking.job)
    _heal(world)
    job = await world.finished(ticking.job)
    expect(job.state.name, "SUCCESS", "the state of a job whose assignment was lost")
    ticking.expect_executed_once()
    await world.works()


@check()
async def repeats_a_lost_report(world: World) -> None:
    """A report that did not arrive is handed in again, or the work was for nothing."""
    ticking = await _acknowledged(world, 0.5)
    for wire in world.wires:
        wire.hold()
    await world.until(lambda: "end" in ticking.lines(), "check.tick comes to its end")
    await asyncio.sleep(0.3)
    _heal(world)
    job = await world.finished(ticking.job)
    expect(await world.attempts(job), ["SUCCEEDED"], "the attempts of a job whose report was lost")
    ticking.expect_executed_once()
    await world.works()


@check()
async def bears_a_lost_answer(world: World) -> None:
    """A worker cannot know whether a report arrived whose answer did not; what it does then must do no harm."""
    ticking = await world.tick(1)
    for wire in world.wires:
        wire.hold(answers_only=True)
    await world.finished(ticking.job)
    _heal(world)
    await world.works()
    expect(await world.attempts(ticking.job), ["SUCCEEDED"], "the attempts of a job whose answer was lost")
    ticking.expect_executed_once()


@check()
async def stops_in_silence(world: World) -> None:
    """A worker that has not got through for the time of its lease has lost its jobs, and must have stopped them, since
    another one is given them."""
    ticking = await _acknowledged(world, 60, max_attempts=1)
    for wire in world.wires:
        wire.hold()
    last = time.time() + LEASE + MARGIN
    job = await world.finished(ticking.job)
    expect(await world.attempts(job), ["LOST"], "the attempts of a job whose worker was not heard of")
    await ticking.quiet_after(last, "after the lease was over")
    _heal(world)
    await world.works()
    expect(await world.attempts(ticking.job), ["LOST"], "the attempts of a job whose worker came back")


@check()
async def leaves_what_it_gave_up(world: World) -> None:
    """A worker that hears no answers stops its jobs, but is heard itself: its session lives. It must not leave them
    there, where nobody executes them: it starts a new session, or does not name them when it continues this one."""
    ticking = await _acknowledged(world, 2 * LEASE, max_attempts=2)
    for wire in world.wires:
        wire.hold(answers_only=True)
    await asyncio.sleep(LEASE)
    _heal(world)
    await world.finished(ticking.job)
    await world.works()


@check()
async def stops_what_it_lost(world: World) -> None:
    """A worker that stood still for longer than its lease learns that its jobs are lost, stops them, and goes on with
    others."""
    ticking = await _acknowledged(world, 60, max_attempts=1)
    world.worker.pause()
    job = await world.finished(ticking.job)
    expect(await world.attempts(job), ["LOST"], "the attempts of a job whose worker stood still")
    world.worker.resume()
    await ticking.quiet_after(time.time() + LEASE, "though it was lost")
    await world.works()


@check()
async def meets_a_new_server(world: World) -> None:
    """A server that knows nothing of the session means that its jobs are lost; it stops them and starts anew."""
    ticking = await world.tick(60)
    for wire in world.wires:
        wire.refuse()
    await world.stop_server()
    await world.start_server()
    _heal(world)
    await world.announced()
    await ticking.quiet_after(time.time() + LEASE, "though its session was over")
    await world.works()
