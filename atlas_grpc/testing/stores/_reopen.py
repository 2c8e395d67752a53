"""Several Store objects on the same data: one after the other (durable stores), at the same time (shared ones)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ...errors import StoreFull
from ...model import LogLine, Progress, Severity, Update
from ...stores.base import MAX_DOCUMENTS, Filter
from ._kit import HOUR, Kit, check, equal, ids, refused, true

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ...model import Job


@asynccontextmanager
async def _beside(kit: Kit) -> AsyncIterator[Kit]:
    """A second open store on the same data."""
    other = Kit(kit.factory, kit.factory.another(kit.store))
    await other.store.open(other.listener)
    try:
        yield other
    finally:
        await other.store.close()


@check()
async def a_closed_store_may_be_opened_again(kit: Kit) -> None:
    """Closing twice is harmless; opened again, the store works and gives its hints."""
    await kit.new(1)
    await kit.store.close()
    await kit.store.close()
    await kit.store.open(kit.listener)
    kit.listener.changes = 0
    (job,) = await kit.new(1)
    equal(await kit.get(job), job, "it works again")
    await kit.hinted(lambda: kit.listener.changes > 0, "on_changes after the store was opened again")


@check(durable=True)
async def everything_is_there_again(kit: Kit) -> None:
    """Jobs, names, queues, timers, sessions, output, documents, feed and cursors outlive the Store object."""
    start = await kit.store.head()
    await kit.new(2, request_id="")
    (named,) = await kit.new(1, request_id="r")
    (later,) = await kit.new(1, delay=HOUR)
    await kit.session(ttl=HOUR, info=b"told")
    await kit.store.put_documents("kind", {"x": b"1", "y": b""})
    (taken,) = await kit.claim(1)
    await kit.store.report([Update(taken.id, taken.fence, Progress(1.0), (LogLine(Severity.INFO, "x"),))])
    before = await _picture(kit, start)
    await kit.store.close()
    async with _beside(kit) as again:
        equal(await _picture(again, start), before, "all is as it was")
        equal(again.store.epoch, kit.store.epoch, "cursors can be compared")
        equal(await again.insert(again.job(request_id="r")), [named], "names are known")
        equal(await again.store.due(10), ([], later.due), "timers are set")
        equal(await again.store.renew(["s1"], HOUR), [True], "sessions live")
        (following,) = await again.claim(1)
        true(following.fence > taken.fence, "tokens go on growing")
        await again.finish(taken)


async def _picture(kit: Kit, start: int) -> dict[str, object]:
    """All that can be asked of a store."""
    page = await kit.store.find(Filter("default"), None, 100)
    names = [job.id for job in page.jobs]
    counts = await kit.store.counts()
    return {
        "jobs": page,
        "held": await kit.store.held("s1", 10),
        "sessions": await kit.store.sessions(),
        "documents": await kit.store.documents("kind"),
        "due": await kit.store.due(10),
        "outputs": await kit.store.outputs(names),
        "logs": [await kit.store.logs(name, 0, 10) for name in names],
        "ready": sorted((q.queue, q.type, q.depth, q.oldest) for q in counts.queues if q.type != "marker"),
        "feed": [(change.spec.id, change.job and change.job.version) for change in await kit.feed(start)],
    }


@check(shared=True)
async def two_stores_see_one_truth(kit: Kit) -> None:
    """What one writes, the other reads, claims, follows and is hinted at."""
    async with _beside(kit) as other:
        start = await other.store.head()
        (job,) = await kit.new(1, request_id="r")
        equal(await other.get(job), job, "a job that the other one inserted")
        equal(await other.insert(other.job(request_id="r")), [job], "a name that the other one gave")
        await other.hinted(lambda: other.listener.ready > 0, "on_ready at the other one")
        await other.hinted(lambda: other.listener.changes > 0, "on_changes at the other one")
        await kit.session()
        (taken,) = await other.claim(1)
        equal(await kit.store.held("s1", 10), [taken], "a session that the other one opened")
        await kit.store.report([Update(job.id, taken.fence, Progress(1.0))])
        await other.hinted(lambda: job.id in other.listener.outputs, "on_output at the other one")
        done = await kit.finish(taken)
        equal(await other.put(taken, 1), False, "compare-and-set holds across stores")
        changes = await other.feed(start)
        equal([change.job for change in changes], [done], "the feed is one")
        equal(kit.store.epoch, other.store.epoch, "cursors can be compared")


@check(shared=True)
async def two_stores_share_documents_and_sessions(kit: Kit) -> None:
    """What one writes the other reads at once."""
    async with _beside(kit) as other:
        await kit.session("s1", info=b"one")
        await other.session("s2", info=b"two")
        for store in (kit.store, other.store):
            equal(await store.sessions(), [("s1", b"one"), ("s2", b"two")], "the sessions that both opened")
        await other.session("s1", info=b"other")
        equal(await kit.store.sessions(), [("s1", b"other"), ("s2", b"two")], "the info that the other one replaced")
        await other.store.close_session("s1")
        equal(await kit.store.sessions(), [("s2", b"two")], "without that which the other one closed")
        for n in range(20):
            one, another = (kit.store, other.store) if n % 2 else (other.store, kit.store)
            equal((await another.documents("kind")).get("x"), b"%d" % (n - 1) if n else None, "as it was before")
            await one.put_documents("kind", {"x": b"%d" % n})
            equal(await another.documents("kind", ["x"]), {"x": b"%d" % n}, "what the other one wrote")


@check(shared=True)
async def two_stores_keep_the_bound_of_a_kind(kit: Kit) -> None:
    """Of calls that come together as many are taken as fit, each whole; those that add the same count once."""
    async with _beside(kit) as other:
        await kit.store.put_documents("kind", {f"old {n}": b"" for n in range(MAX_DOCUMENTS - 24)})
        pair = (kit.store, other.store)
        same = {f"same {n}": b"x" for n in range(10)}
        await asyncio.gather(*(store.put_documents("kind", same) for store in pair * 4))
        sets = [{f"new {n} {m}": b"" for m in range(5)} for n in range(8)]
        calls = [refused(pair[n % 2].put_documents("kind", some), StoreFull) for n, some in enumerate(sets)]
        answers = await asyncio.gather(*calls)
        equal(answers.count(False), 2, "fourteen more fit, five a call")
        found = await other.store.documents("kind")
        equal(len(found), MAX_DOCUMENTS - 4, "those that were the same count once")
        for some, no in zip(sets, answers, strict=True):
            equal(len(found.keys() & some.keys()), 0 if no else 5, "a call is done whole or not at all")


@check(shared=True)
async def two_stores_race(kit: Kit) -> None:
    """Names and claims are exact across stores too, and tokens grow over both."""
    async with _beside(kit) as other:
        pair = (kit, other)
        answers = await asyncio.gather(
            *(one.insert(*(one.job(request_id=f"r{n}") for n in range(20))) for one in pair for _ in range(4))
        )
        equal(len({tuple(ids(answer)) for answer in answers}), 1, "all are told the same jobs")
        await kit.session()

        async def drain(one: Kit) -> list[Job]:
            mine: list[Job] = []
            while some := await one.claim(3):
                mine += some
                true(len(mine) <= 20, "no more is claimed than there is")
            return mine

        taken = [job for mine in await asyncio.gather(*(drain(one) for one in pair for _ in range(4))) for job in mine]
        equal(len(taken), 20, "each job is claimed once")
        equal(len({job.fence for job in taken}), 20, "each claim has a token of its own")
        fences = []
        for n in range(10):
            await kit.new(1)
            fences += [job.fence for job in await pair[n % 2].claim(1)]
        equal(fences, sorted(set(fences)), "tokens grow over both")
        true(fences[0] > max(job.fence for job in taken), "beyond all before")
