"""Due."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from ... import lifecycle
from ...errors import Unavailable
from ...model import Ask, State
from ._kit import HOUR, SHORT, Kit, Listener, check, equal, ids, present, true


@check()
async def due_comes_in_order(kit: Kit) -> None:
    """What a timer has reached, oldest first, no more than the limit; and when the next one will be."""
    delays = [400, 100, 300, 200]
    jobs = [kit.job(delay=delay) for delay in delays]
    far = kit.job(delay=HOUR)
    await kit.insert(far, *jobs)
    order = sorted(jobs, key=lambda job: job.next_start)
    await kit.pass_time(SHORT)
    found, following = await kit.store.due(3)
    equal(ids(found), ids(order[:3]), "the three that are due longest")
    true(following is not None and following <= kit.store.now(), "the next one is due already")
    found, following = await kit.store.due(10)
    equal(found, order, "all that are due, whole; asking does not consume")
    equal(following, far.due, "the next one is the far one")


@check()
async def due_tells_when_to_come_back(kit: Kit) -> None:
    """Nothing due: when the next one will be; nothing timed: None."""
    equal(await kit.store.due(10), ([], None), "an empty store")
    await kit.new(2)
    equal(await kit.store.due(10), ([], None), "jobs without a timer")
    far, near = kit.job(delay=2 * HOUR), kit.job(delay=HOUR)
    await kit.insert(far, near)
    equal(await kit.store.due(10), ([], near.due), "the nearest timer")
    await kit.store.delete([near])
    equal(await kit.store.due(10), ([], far.due), "without the deleted one")


@check()
async def a_moved_timer_counts_anew(kit: Kit) -> None:
    """Only the instant of the stored record counts: earlier, later, taken away, and set again to the same."""
    (job,) = await kit.new(1, delay=HOUR)
    now = kit.store.now()
    history = [now - 2, now + HOUR, now - 5, None, now - 5, now - 5]
    for due in history:
        after = replace(job, version=job.version + 1, due=due)
        equal(await kit.put(after, job.version), True, "an undisputed change is stored")
        job = after
        if due is None:
            equal(await kit.store.due(10), ([], None), "a timer that was taken away")
        elif due > kit.store.now():
            equal(await kit.store.due(10), ([], due), "a timer in the future")
        else:
            equal(await kit.store.due(10), ([job], None), "a timer that is reached, once")


@check()
async def timers_of_every_state(kit: Kit) -> None:
    """A waiting job's start-by, a running one's timeout, a finished one's retention."""
    await kit.session()
    (running,) = await kit.new(1, type="a", attempt_timeout=1_000)
    (taken,) = await kit.claim(asks=[Ask("a", 1)])
    (waiting,) = await kit.new(1, start_timeout=1_000, total_timeout=HOUR)
    (finished,) = await kit.new(1, type="b", retention=1_000)
    (other,) = await kit.claim(asks=[Ask("b", 1)])
    done = await kit.finish(other)
    await kit.pass_time(SHORT)
    found, following = await kit.store.due(10)
    equal(set(ids(found)), {running.id, waiting.id, finished.id}, "all three are due")
    equal(following, None, "and nothing else will be")
    wanted = sorted(job.due for job in (taken, waiting, done) if job.due is not None)
    equal([job.due for job in found], wanted, "oldest first")
    by_id = {job.id: lifecycle.on_timer(job, kit.store.now(), kit.rng) for job in found}
    equal(by_id[finished.id], None, "retention is over")
    equal(present(by_id[waiting.id]).state, State.FAILED, "it did not start in time")
    equal(present(by_id[running.id]).state, State.PENDING, "the attempt timed out")


@check()
async def many_timers_are_worked_off(kit: Kit) -> None:
    """A sweep in small batches moves every job once and comes to an end."""
    jobs = await kit.new(50, delay=1_000)
    await kit.pass_time(SHORT)
    moved: list[str] = []
    for _ in range(len(jobs)):
        found, _following = await kit.store.due(7)
        if not found:
            break
        after = [present(lifecycle.on_timer(job, kit.store.now(), kit.rng)) for job in found]
        won = await kit.store.put(after, [job.version for job in found])
        true(all(won), "nobody else moves them")
        moved += [job.id for job in found]
    equal(sorted(moved), [job.id for job in jobs], "each is moved exactly once")
    equal(await kit.store.due(10), ([], None), "nothing is left")


@check()
async def the_clock_is_known_once_open(kit: Kit) -> None:
    """A store that was never open may not know the time, and says so by Unavailable; one that was knows it for good."""
    async with kit.factory() as store:
        with suppress(Unavailable):
            true(store.now() > 0, "a time is one")
        await store.open(Listener())
        before = store.now()
        await store.close()
        true(store.now() >= before, "the clock goes on when the store is closed")
