"""Find and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ... import lifecycle
from ...model import Failed, Failure, State
from ...stores.base import Filter, QueueCount
from ._kit import SHORT, Kit, check, equal, ids, true

if TYPE_CHECKING:
    from ...model import Job


async def _walk(kit: Kit, where: Filter, limit: int) -> list[Job]:
    """All pages of a listing."""
    found: list[Job] = []
    after: str | None = None
    while True:
        page = await kit.store.find(where, after, limit)
        true(len(page.jobs) <= limit, "a page holds no more than its limit")
        found += page.jobs
        if page.after is None:
            return found
        true(after is None or page.after < after, "each page ends at an older job than the one before")
        after = page.after


async def _zoo(kit: Kit) -> list[Job]:
    """Jobs of several types, queues, labels, namespaces, times and states, in the order of their ids."""
    jobs = [
        kit.job(type=job_type, queue=queue, labels=labels, since=since)
        for job_type in ("work", "rest")
        for queue in ("main", "side")
        for labels in ({}, {"a": "1"}, {"a": "1", "b": "2"}, {"a": "2"})
        for since in (0, 1_000, 2_000)
    ]
    await kit.insert(*jobs, kit.job(namespace="other"), kit.job(namespace="other", labels={"a": "1"}))
    await kit.session()
    await kit.pass_time(SHORT)
    claimed = await kit.claim(8)
    for job in claimed[:3]:
        await kit.finish(job)
    for job in claimed[3:6]:
        await kit.finish(job, Failed(Failure(2, "X", "x"), retryable=False))
    (old,) = await kit.store.get([jobs[-1].id])
    assert old is not None
    true(await kit.put(lifecycle.cancelled(old, kit.store.now()), old.version), "an undisputed cancellation is stored")
    stored = [job for job in await kit.store.get([job.id for job in jobs]) if job is not None]
    equal(len(stored), len(jobs), "all jobs are still there")
    return stored


@check()
async def find_by_each_filter_and_all_together(kit: Kit) -> None:
    """Each criterion alone, several values of it, and all at once, in pages of any size."""
    jobs = await _zoo(kit)
    created = sorted({job.spec.create_time for job in jobs})
    some = frozenset(job.id for job in jobs[::5])
    criteria = [
        Filter("default"),
        Filter("other"),
        Filter("nobody"),
        Filter("default", ids=some),
        Filter("default", ids=some | {"no-such-job"}),
        Filter("other", ids=some),
        *(Filter("default", states=frozenset({state})) for state in State),
        Filter("default", states=frozenset({State.PENDING, State.FAILED})),
        Filter("default", types=frozenset({"rest"})),
        Filter("default", types=frozenset({"rest", "work", "none"})),
        Filter("default", types=frozenset({"none"})),
        Filter("default", queues=frozenset({"side"})),
        Filter("default", labels={"a": "1"}),
        Filter("default", labels={"a": "1", "b": "2"}),
        Filter("default", labels={"b": "1"}),
        Filter("default", created_from=created[len(created) // 2]),
        Filter("default", created_before=created[len(created) // 2]),
        Filter("default", created_from=created[1], created_before=created[1] + 1),
        Filter(
            "default",
            some,
            frozenset({State.PENDING, State.RUNNING}),
            frozenset({"work", "rest"}),
            frozenset({"main", "side"}),
            {"a": "1"},
            created[0],
            created[-1] + 1,
        ),
    ]
    others = (await kit.store.find(Filter("other"), None, 10)).jobs
    equal(len(others), 2, "the jobs of another namespace")
    everything = sorted([*jobs, *others], key=lambda job: job.id, reverse=True)
    for where in criteria:
        wanted = [job for job in everything if where.matches(job.spec, job.state)]
        for limit in (1, 3, 7, 100):
            equal(await _walk(kit, where, limit), wanted, f"{where} in pages of {limit}")


@check()
async def find_is_newest_first_whatever_the_order_of_inserts(kit: Kit) -> None:
    """Concurrent submits may be stored in another order than their ids were drawn in."""
    jobs = [kit.job() for _ in range(40)]
    mixed = jobs[:]
    kit.rng.shuffle(mixed)
    for start in range(0, len(mixed), 3):
        await kit.insert(*mixed[start : start + 3])
    wanted = jobs[::-1]
    for limit in (1, 7, 100):
        equal(ids(await _walk(kit, Filter("default"), limit)), ids(wanted), "newest first, without gap or repeat")
    page = await kit.store.find(Filter("default"), jobs[20].id, 5)
    equal(ids(page.jobs), ids(wanted[20:25]), "a page after a job begins with the next older one")


@check()
async def pages_hold_while_jobs_come_and_go(kit: Kit) -> None:
    """Jobs that stay are listed exactly once, whatever is inserted, changed and deleted between two pages."""
    jobs = await kit.new(60)
    stay = {job.id for job in jobs[::3]}
    doomed = [job for job in jobs if job.id not in stay]
    seen: list[str] = []
    after: str | None = None
    while True:
        page = await kit.store.find(Filter("default"), after, 4)
        seen += [job.id for job in page.jobs]
        if page.after is None:
            break
        true(after is None or page.after < after, "each page ends at an older job than the one before")
        after = page.after
        await kit.new(3)
        kit.rng.shuffle(doomed)
        doomed.sort(key=lambda job: job.id == after)
        await kit.store.delete([doomed.pop() for _ in range(min(3, len(doomed)))])
        await kit.step(await kit.get(kit.rng.choice(jobs[::3])))
    equal(len(seen), len(set(seen)), "no job is listed twice")
    true(stay <= set(seen), "no job that was there all the time is left out")
    equal(seen, sorted(seen, reverse=True), "newest first")


@check()
async def a_page_may_continue_after_a_job_that_is_gone(kit: Kit) -> None:
    """The place where a listing continues need not exist (any more); one that nobody issued is harmless."""
    jobs = await kit.new(5)
    await kit.store.delete([jobs[2]])
    page = await kit.store.find(Filter("default"), jobs[2].id, 10)
    equal(ids(page.jobs), [jobs[1].id, jobs[0].id], "the page after a deleted job")
    for forged in ("", "no such id", "zzzz", "\x00", "0" * 5_000):
        page = await kit.store.find(Filter("default"), forged, 10)
        true(len(page.jobs) <= len(jobs), "a place that nobody issued lists what is there, or nothing")


@check()
async def a_search_that_finds_little_comes_to_its_end(kit: Kit) -> None:
    """A store may stop looking before a page is full; its pages together still hold every match."""
    rare = await kit.new(2, type="rare")
    for _ in range(11):
        await kit.new(500)
    found = await _walk(kit, Filter("default", types=frozenset({"rare"})), 10)
    equal(ids(found), [rare[1].id, rare[0].id], "all matches of a selective filter")
    equal(await _walk(kit, Filter("default", types=frozenset({"none"})), 10), [], "a filter that matches nothing")


@check()
async def counts_follow_every_step(kit: Kit) -> None:
    """Jobs by state, and of those that are ready, how many and since when, by queue and type."""
    jobs = [
        kit.job(),
        kit.job(since=-5_000),
        kit.job(queue="side", since=-9_000),
        kit.job(type="rest", priority=9),
        kit.job(delay=10**12),
    ]
    await kit.insert(*jobs)
    await _counts(kit, {State.PENDING: 5}, jobs[:4])
    await kit.session()
    taken = await kit.claim(1)
    equal(ids(taken), [jobs[2].id], "the job that is ready longest")
    await _counts(kit, {State.PENDING: 4, State.RUNNING: 1}, [jobs[0], jobs[1], jobs[3]])
    done = await kit.finish(taken[0])
    await _counts(kit, {State.PENDING: 4, State.SUCCESS: 1}, [jobs[0], jobs[1], jobs[3]])
    again = lifecycle.new_run(done, kit.store.now())
    equal(await kit.put(again, done.version), True, "an undisputed new run is stored")
    await _counts(kit, {State.PENDING: 5}, [jobs[0], jobs[1], jobs[3], again])
    equal(await kit.store.delete([jobs[1]]), [True], "an undisputed delete")
    await _counts(kit, {State.PENDING: 4}, [jobs[0], jobs[3], again])
    later = replace(again, version=again.version + 1, ready=False, due=again.next_start + 10**12)
    equal(await kit.put(later, again.version), True, "an undisputed postponement is stored")
    await _counts(kit, {State.PENDING: 4}, [jobs[0], jobs[3]])
    await kit.store.delete([jobs[3]])
    await _counts(kit, {State.PENDING: 3}, [jobs[0]])


async def _counts(kit: Kit, states: dict[State, int], ready: list[Job]) -> None:
    """Compares with a count by hand. A store may take a moment to count."""
    places = sorted({(job.spec.queue, job.spec.type) for job in ready})
    wanted = [
        QueueCount(
            *place,
            sum((job.spec.queue, job.spec.type) == place for job in ready),
            min(job.next_start for job in ready if (job.spec.queue, job.spec.type) == place),
        )
        for place in places
    ]
    last: list[object] = []

    async def agrees() -> bool:
        counts = await kit.store.counts()
        found = {state: count for state, count in counts.states.items() if count}
        queues = sorted(counts.queues, key=lambda count: (count.queue, count.type))
        last[:] = found, queues
        return found == states and queues == wanted and counts.size >= 0

    try:
        await kit.eventually(agrees, "counts agree with what was written")
    except AssertionError:
        equal(last, [states, wanted], "counts by state and by queue")
