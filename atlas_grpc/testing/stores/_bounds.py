"""Where a store says no, and where it forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import lifecycle
from ...model import Content, Succeeded
from ...stores.base import Filter
from ._kit import EMPTY, HOUR, Kit, check, equal, ids, true

if TYPE_CHECKING:
    from ...model import Job


@check(max_pending=3)
async def a_full_store_says_so(kit: Kit) -> None:
    """Waiting and running jobs count; what does not fit is answered with None, a known name with its job."""
    jobs = [kit.job(request_id=f"r{n}") for n in range(5)]
    equal(await kit.store.insert(jobs), [*jobs[:3], None, None], "as many as fit, in order")
    equal(await kit.store.get([jobs[3].id]), [None], "what was refused is not there")
    equal(await kit.store.insert([kit.job(request_id="r1"), jobs[4]]), [jobs[1], None], "a known name still answers")
    await kit.session()
    taken = await kit.claim(2)
    equal(await kit.store.insert([kit.job()]), [None], "running jobs count")
    await kit.finish(taken[0])
    later = [kit.job(request_id="r3"), kit.job()]
    equal(await kit.store.insert(later), [later[0], None], "a finished one makes room; a refused name is free")


@check(max_pending=2)
async def a_deleted_job_makes_room(kit: Kit) -> None:
    """Room is counted by what is there."""
    jobs = await kit.new(2)
    equal(await kit.store.insert([kit.job()]), [None], "full")
    await kit.store.delete(jobs[:1])
    equal(len(await kit.new(1)), 1, "room again")


async def _finished(kit: Kit, count: int) -> list[Job]:
    """So many jobs that finish one after the other."""
    await kit.session()
    done = []
    for _ in range(count):
        await kit.new(1, request_id=f"done {kit.rng.random()}")
        (taken,) = await kit.claim(1)
        done.append(await kit.finish(taken))
        await kit.pass_time(1_000)
    return done


@check(max_finished=3)
async def the_oldest_finished_go_by_count(kit: Kit) -> None:
    """Beyond the bound the longest finished are deleted: told by the feed, and their names are free."""
    start = await kit.store.head()
    done = await _finished(kit, 5)

    async def is_so() -> bool:
        return ids(await kit.store.get([job.id for job in done])) == [None, None, *ids(done[2:])]

    await kit.eventually(is_so, "the two that finished first are gone")
    gone = [change.spec.id for change in await kit.feed(start) if change.job is None]
    equal(gone, ids(done[:2]), "their deletions are told, in order")
    again = kit.job(request_id=done[0].spec.request_id)
    equal(await kit.insert(again), [again], "their names are free")
    page = await kit.store.find(Filter("default"), None, 10)
    equal(ids(page.jobs), [again.id, *ids(done[:1:-1])], "the listing has the others")


@check(max_finished=3)
async def the_first_to_end_go_first(kit: Kit) -> None:
    """By the time of their end, whatever their retention and the order in which their ends were stored."""
    spans = {"a": (50, HOUR), "b": (20, 3 * HOUR), "c": (40, HOUR), "d": (10, 9 * HOUR), "e": (30, 2 * HOUR)}
    await kit.insert(*(kit.job(labels={"name": name}, retention=keep) for name, (_, keep) in spans.items()))
    await kit.session()
    taken = await kit.claim(5)
    start = await kit.store.head()
    now = kit.store.now()
    ends = [lifecycle.ended(job, now + spans[job.spec.labels["name"]][0], Succeeded(EMPTY), kit.rng) for job in taken]
    equal(await kit.store.put(ends, [job.version for job in taken]), [True] * 5, "undisputed ends are stored")

    async def is_so() -> bool:
        return [job is not None for job in await kit.store.get([job.id for job in ends])] == [True, False] * 2 + [True]

    await kit.eventually(is_so, "the two that ended first are gone")
    gone = [change.spec.labels["name"] for change in await kit.feed(start) if change.job is None]
    equal(gone, ["d", "b"], "the first to end goes first")


@check(max_finished=2)
async def a_new_run_is_not_forgotten(kit: Kit) -> None:
    """A job that was finished and runs again is not among the finished; it is the youngest when it ends again."""
    done = await _finished(kit, 2)
    again = lifecycle.new_run(done[0], kit.store.now())
    equal(await kit.put(again, done[0].version), True, "an undisputed new run is stored")
    (third,) = await kit.new(1)
    taken = {job.id: job for job in await kit.claim(2)}
    await kit.finish(taken[third.id])
    equal(ids(await kit.store.get([done[0].id, done[1].id, third.id])), ids([done[0], done[1], third]), "all are there")
    last = await kit.finish(taken[done[0].id])

    async def is_so() -> bool:
        return ids(await kit.store.get([done[0].id, done[1].id, third.id])) == [last.id, None, third.id]

    await kit.eventually(is_so, "the longest finished is gone, which is not the one that ran again")


@check(max_bytes=1_000_000)
async def the_oldest_finished_go_by_size(kit: Kit) -> None:
    """Large finished jobs make room for new ones; when only unfinished ones are left, the store is full."""
    big = Content(b"x" * 300_000, "application/octet-stream")
    await kit.session()
    done: list[Job] = []
    for _ in range(3):
        await kit.new(1, payload=big)
        (taken,) = await kit.claim(1)
        done.append(await kit.finish(taken))
        await kit.pass_time(1_000)
    size = (await kit.store.counts()).size
    true(size == 0 or size >= 900_000, "the size counts payloads, if it is known")
    kept = await kit.new(2, payload=big)

    async def is_so() -> bool:
        found = await kit.store.get([job.id for job in done])
        return found[:2] == [None, None]

    await kit.eventually(is_so, "the two that finished first made room")
    await kit.new(1, payload=big)
    equal(await kit.store.get([done[2].id]), [None], "so did the last one")
    equal(await kit.store.insert([kit.job(payload=big)]), [None], "unfinished jobs are never forgotten")
    equal(await kit.store.get([job.id for job in kept]), kept, "they are all there")


@check(max_bytes=1_000_000)
async def results_count_too(kit: Kit) -> None:
    """A result that exceeds the bound pushes out older finished jobs, not what waits."""
    big = Content(b"x" * 600_000, "")
    (waiting,) = await kit.new(1, type="rest")
    await kit.session()
    await kit.new(1, payload=big)
    (taken,) = await kit.claim(1)
    first = await kit.finish(taken)
    await kit.pass_time(1_000)
    await kit.new(1)
    (taken,) = await kit.claim(1)
    last = await kit.finish(taken, Succeeded(big))

    async def is_so() -> bool:
        return await kit.store.get([first.id]) == [None]

    await kit.eventually(is_so, "the older finished one is gone")
    equal(await kit.store.get([waiting.id, last.id]), [waiting, last], "what waits stays, and the younger one")
