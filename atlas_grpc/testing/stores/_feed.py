"""The change feed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ... import lifecycle
from ...model import Ask, Content, Succeeded
from ._kit import EMPTY, PATIENCE, Kit, check, equal, expired_token, ids, true

if TYPE_CHECKING:
    from ...stores.base import Change

_BAD_CURSORS = (-1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1)


def _told(changes: list[Change]) -> list[tuple[str, int | None]]:
    return [(change.spec.id, None if change.job is None else change.job.version) for change in changes]


@check()
async def the_feed_tells_changes_in_order(kit: Kit) -> None:
    """Inserts, puts and claims, one after the other; the records are the stored ones."""
    start = await kit.store.head()
    a, b, c = await kit.new(3)
    await kit.session()
    (taken,) = await kit.claim(1)
    equal(taken.id, a.id, "the oldest is claimed")
    moved = await kit.step(c)
    done = await kit.finish(taken)
    changes = await kit.feed(start)
    equal([change.job for change in changes], [b, moved, done], "the latest change of each job, in order")
    equal([change.spec for change in changes], [b.spec, c.spec, a.spec], "with its spec")


@check()
async def a_batch_stands_in_the_feed_job_by_job(kit: Kit) -> None:
    """Every job of a batch is told."""
    start = await kit.store.head()
    jobs = await kit.new(50)
    equal(sorted(_told(await kit.feed(start, limit=7))), [(job.id, 1) for job in jobs], "the jobs of a batch")


@check()
async def a_batch_stands_in_the_feed_in_its_order(kit: Kit) -> None:
    """What one call changed is told in the order of its batch, whatever its ids; claims in the order of the answer."""
    start = await kit.store.head()
    jobs = [kit.job(type=f"t{n % 2}", priority=n % 3, request_id=f"r{7 * n % 90}" if n % 4 else "") for n in range(90)]
    kit.rng.shuffle(jobs)
    await kit.insert(*jobs)
    equal(ids(change.job for change in await kit.feed(start)), ids(jobs), "of an insert")

    start = await kit.store.head()
    await kit.session()
    taken = await kit.claim(40, asks=[Ask("t0", 30), Ask("t1", 30)])
    equal(ids(change.job for change in await kit.feed(start)), ids(taken), "of a claim")

    start = await kit.store.head()
    now = kit.store.now()
    kit.rng.shuffle(taken)
    ends = [lifecycle.ended(job, now, Succeeded(EMPTY), kit.rng) for job in taken]
    equal(await kit.store.put(ends, [job.version for job in taken]), [True] * 40, "undisputed ends are stored")
    equal(ids(change.job for change in await kit.feed(start)), ids(ends), "of a put")

    start = await kit.store.head()
    kit.rng.shuffle(ends)
    equal(await kit.store.delete(ends), [True] * 40, "undisputed deletes")
    equal([change.spec.id for change in await kit.feed(start)], ids(ends), "of a delete")


@check()
async def several_changes_become_the_latest(kit: Kit) -> None:
    """A reader that was away is told each job once, as it is now, at the place of its latest change."""
    start = await kit.store.head()
    a, b = await kit.new(2)
    for _ in range(5):
        a = await kit.step(a)
    middle = await kit.store.head()
    b = await kit.step(b)
    equal(_told(await kit.feed(start)), [(a.id, 6), (b.id, 2)], "each job once")
    told = _told(await kit.feed(middle))
    equal(told[-1:], [(b.id, 2)], "a reader from the middle is told what came after")


@check()
async def deletions_are_told(kit: Kit) -> None:
    """A deleted job is told once, with its spec but for the payload."""
    start = await kit.store.head()
    stays, goes = await kit.insert(
        kit.job(), kit.job(payload=Content(b'{"x":1}'), labels={"a": "1"}, type="gone", queue="q", priority=3)
    )
    await kit.store.delete([goes])
    stays = await kit.step(stays)
    changes = await kit.feed(start)
    equal(_told(changes), [(goes.id, None), (stays.id, 2)], "the deletion, at its place")
    spec = changes[0].spec
    equal(
        (spec.namespace, spec.type, spec.queue, spec.labels, spec.create_time, spec.payload),
        ("default", "gone", "q", {"a": "1"}, goes.spec.create_time, EMPTY),
        "what a filter asks for is still told",
    )


@check()
async def what_was_refused_is_not_told(kit: Kit) -> None:
    """Repeated names, stale puts and stale deletes are no changes."""
    (job,) = await kit.new(1, request_id="r")
    moved = await kit.step(job)
    await kit.feed()
    start = await kit.store.head()
    await kit.insert(kit.job(request_id="r"))
    equal(await kit.put(lifecycle.cancelled(job, kit.store.now()), 1), False, "a stale put")
    equal(await kit.store.delete([job]), [False], "a stale delete")
    equal(_told(await kit.feed(start)), [], "nothing happened")
    equal(await kit.get(job), moved, "nor was stored")


@check()
async def head_is_the_place_after_the_newest(kit: Kit) -> None:
    """Nothing is told after the head; what happens after it was asked for is."""
    await kit.new(3)
    await kit.feed()

    async def at_rest() -> bool:
        head = await kit.store.head()
        return await kit.store.changes(head, 10) == ([], head)

    await kit.eventually(at_rest, "the feed comes to rest at its head")
    head = await kit.store.head()
    (job,) = await kit.new(1)
    equal(_told(await kit.feed(head)), [(job.id, 1)], "what came after the head is told")
    true(await kit.store.head() > head, "the head has moved")


@check()
async def a_cursor_moves_by_no_more_than_the_limit(kit: Kit) -> None:
    """Read in the smallest pieces, the feed advances with each and tells the same."""
    start = await kit.store.head()
    jobs = await kit.new(10)
    for job in jobs[::2]:
        await kit.step(job)
    whole = _told(await kit.feed(start))
    pieces = _told(await kit.feed(start, limit=1))
    equal(pieces, whole, "one at a time")
    equal(_told(await kit.feed(start, limit=3)), whole, "three at a time")


@check()
async def no_gap_while_others_write(kit: Kit) -> None:
    """A reader that follows while eight writers insert, step and delete ends with exactly what is stored."""
    start = await kit.store.head()
    writers = [asyncio.ensure_future(_write(kit)) for _ in range(8)]
    seen: dict[str, int | None] = {}
    cursor = start
    try:
        while not all(writer.done() for writer in writers):
            changes, after = await kit.store.changes(cursor, 5)
            true(after >= cursor, "a cursor never goes back")
            cursor = after
            _note(seen, changes)
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            written = {job_id: version for mine in await asyncio.gather(*writers) for job_id, version in mine.items()}
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    _note(seen, await kit.feed(cursor, limit=5))
    equal(seen, written, "the reader knows the latest of every job")


async def _write(kit: Kit) -> dict[str, int | None]:
    written: dict[str, int | None] = {}
    for n in range(12):
        first, second = await kit.new(2)
        await asyncio.sleep(0)
        first = await kit.step(first)
        written[first.id] = first.version
        written[second.id] = second.version
        if n % 3 == 0:
            equal(await kit.store.delete([second]), [True], "an undisputed delete")
            written[second.id] = None
        await asyncio.sleep(0)
    return written


def _note(seen: dict[str, int | None], changes: list[Change]) -> None:
    for change in changes:
        job_id = change.spec.id
        version = None if change.job is None else change.job.version
        known = seen.get(job_id, 0)
        true(known is not None, "nothing is told of a job after its deletion")
        true(version is None or known is None or version >= known, "a job never goes back to an older version")
        seen[job_id] = version


@check()
async def a_cursor_that_nobody_gave_is_refused(kit: Kit) -> None:
    """Negative, future and absurd cursors: ResumeTokenExpired, not a fault and not silence."""
    await kit.new(3)
    await kit.feed()
    head = await kit.store.head()
    for cursor in (*_BAD_CURSORS, head + 1_000_000):
        true(await expired_token(kit.store.changes(cursor, 10)), f"cursor {cursor} is refused")


@check(feed_length=16)
async def a_cursor_that_is_too_old_is_refused(kit: Kit) -> None:
    """When changes after a cursor are no longer kept, that is said; a younger cursor still works."""
    start = await kit.store.head()
    for _ in range(20):
        await kit.new(10)

    async def is_gone() -> bool:
        return await expired_token(kit.store.changes(start, 10))

    await kit.eventually(is_gone, "a cursor that is too old is refused")
    head = await kit.store.head()
    jobs = await kit.new(5)
    equal(_told(await kit.feed(head)), [(job.id, 1) for job in jobs], "a younger cursor still works")


@check()
async def the_epoch_stays_while_the_store_is_open(kit: Kit) -> None:
    """Cursors of one open store can be compared."""
    epoch = kit.store.epoch
    true(epoch, "an epoch is not empty")
    jobs = await kit.new(3)
    await kit.store.delete(jobs[:1])
    equal(kit.store.epoch, epoch, "writing does not change it")
    equal(ids(await kit.store.get([jobs[1].id])), [jobs[1].id], "nor loses a job")
