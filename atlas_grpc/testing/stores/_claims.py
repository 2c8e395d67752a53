"""Claim, ahead, and the fence."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

from ... import lifecycle
from ...model import SECOND, Ask, Job, LogLine, Severity, State, Succeeded, Update
from ._kit import EMPTY, HOUR, Kit, check, equal, ids, present, true

_CLAIMERS = 8


@check()
async def a_claim_starts_the_job(kit: Kit) -> None:
    """The claimed record is what lifecycle makes of the ready one, and it is the stored one."""
    (job,) = await kit.new(1)
    await kit.session()
    before = kit.store.now()
    (taken,) = await kit.claim()
    after = kit.store.now()
    true(
        before - SECOND <= taken.attempt_start <= after + SECOND, "the attempt began at the claim, on the store's clock"
    )
    wanted = lifecycle.started(job, taken.attempt_start, session="s1", worker="worker of s1", fence=taken.fence)
    equal(taken, wanted, "a claim applies lifecycle.started")
    equal(await kit.get(job), taken, "the claimed record is stored")
    equal(await kit.claim(), [], "a job that runs is not claimed again")


@check()
async def claims_go_by_priority_then_by_readiness(kit: Kit) -> None:
    """Higher priority first; among equals the one that is ready longest, whatever the order of inserts and ids."""
    jobs = [kit.job(priority=priority, since=since) for priority in (0, 5, -5) for since in (-10, -30, -20)]
    await kit.insert(*jobs)
    await kit.session()
    wanted = sorted(jobs, key=lambda job: (-job.spec.priority, job.next_start, job.id))
    taken = await kit.claim(2) + await kit.claim(4) + await kit.claim(100)
    equal(ids(taken), ids(wanted), "the order of claims")


@check()
async def a_job_that_comes_back_queues_by_its_new_time(kit: Kit) -> None:
    """Readiness counts from the latest time a job became ready, not from its submit."""
    first, second = await kit.new(2)
    await kit.session()
    (taken,) = await kit.claim(1)
    equal(taken.id, first.id, "the older job is first")
    await kit.pass_time(1_000)
    back = lifecycle.released(taken, kit.store.now(), 0)
    equal(await kit.put(back, taken.version), True, "an undisputed release is stored")
    equal(ids(await kit.claim()), [second.id, first.id], "it stands behind what became ready before")


@check()
async def slots_are_counted_per_ask_and_in_all(kit: Kit) -> None:
    """No more of a type than its slots, no more in all than the limit; a type that is not asked for stays."""
    await kit.new(5, type="a")
    await kit.new(5, type="b")
    await kit.new(5, type="c")
    await kit.session()
    taken = await kit.claim(100, asks=[Ask("a", 2), Ask("b", 3), Ask("nothing", 9)])
    equal(sorted(job.spec.type for job in taken), ["a", "a", "b", "b", "b"], "slots of each ask")
    taken = await kit.claim(4, asks=[Ask("a", 10), Ask("b", 10), Ask("c", 10)])
    equal(len(taken), 4, "the limit over all asks")
    equal(await kit.claim(5, asks=[Ask("c", 0)]), [], "an ask without slots")
    equal(await kit.claim(0, asks=[Ask("c", 5)]), [], "a limit of none")
    taken = await kit.claim(100, asks=[Ask("a", 10), Ask("b", 10), Ask("c", 10)])
    equal(len(taken), 6, "what is left")


@check()
async def the_best_of_all_asks_come_first(kit: Kit) -> None:
    """Under a common limit priority decides across types."""
    low = await kit.new(3, type="a")
    high = await kit.new(3, type="b", priority=1)
    await kit.session()
    taken = await kit.claim(4, asks=[Ask("a", 10), Ask("b", 10)])
    equal(ids(taken), ids([*high, low[0]]), "priority decides before the order of asks")


@check()
async def jobs_of_many_asks_come_in_order(kit: Kit) -> None:
    """However many types and queues are asked for, the best jobs of all come first."""
    rng = Random(1)
    types = [f"type-{number}" for number in range(40)]
    jobs = [
        kit.job(
            type=rng.choice(types),
            queue=rng.choice("abc"),
            priority=rng.choice((0, 0, 0, 3)),
            since=-rng.randrange(200),
        )
        for _ in range(400)
    ]
    await kit.insert(*jobs)
    await kit.session()
    best = sorted(jobs, key=lambda job: (-job.spec.priority, job.next_start, job.id))
    asks = [Ask(name, 1_000, frozenset("ac")) for name in types]
    taken = await kit.claim(150, asks=asks) + await kit.claim(1, asks=asks) + await kit.claim(1_000, asks=asks)
    equal(ids(taken), [job.id for job in best if job.spec.queue != "b"], "the order of claims of two queues")
    taken = await kit.claim(1_000, asks=[Ask(name, 1_000) for name in types])
    equal(ids(taken), [job.id for job in best if job.spec.queue == "b"], "the order of the rest")


@check()
async def queues_restrict_an_ask(kit: Kit) -> None:
    """An ask with queues takes from these alone, best first over all of them; an empty set of queues means none."""
    jobs = [kit.job(queue=queue, since=since) for since, queue in enumerate("abcabc", start=-10)]
    await kit.insert(*jobs)
    await kit.new(3, type="rest", queue="a")
    await kit.session()
    equal(await kit.claim(asks=[Ask("work", 9, frozenset())]), [], "no queues, no jobs")
    equal(await kit.claim(asks=[Ask("work", 9, frozenset({"z"}))]), [], "a queue without jobs")
    taken = await kit.claim(asks=[Ask("work", 3, frozenset({"a", "c"}))])
    equal(ids(taken), ids([jobs[0], jobs[2], jobs[3]]), "the oldest of both queues")
    taken = await kit.claim(asks=[Ask("work", 9)])
    equal(ids(taken), ids([jobs[1], jobs[4], jobs[5]]), "the rest, of any queue")


@check()
async def asks_may_overlap(kit: Kit) -> None:
    """Several asks for the same type: each is bounded, no job is taken twice, and none is lost to later claims."""
    await kit.new(6, queue="a")
    await kit.new(6, queue="b")
    await kit.session()
    both = frozenset({"a", "b"})
    asks = [Ask("work", 1), Ask("work", 1), Ask("work", 1, frozenset({"a"})), Ask("work", 1, both)]
    taken: list[Job] = []
    for _ in range(12):
        some = await kit.claim(100, asks=asks)
        true(len(some) <= 4, "no more than the slots of all asks")
        taken += some
    equal(len(set(ids(taken))), len(taken), "no job is taken twice")
    equal(len(taken), 12, "every job is taken in the end")


@check()
async def what_is_not_ready_is_not_claimed(kit: Kit) -> None:
    """Jobs that wait for a time, finished and cancelled ones; and time alone makes nothing ready: a step does."""
    (later,) = await kit.new(1, delay=1_000)
    (cancelled,) = await kit.new(1)
    await kit.put(lifecycle.cancelled(cancelled, kit.store.now()), 1)
    await kit.session()
    await kit.pass_time(2_000)
    equal(await kit.claim(), [], "nothing is ready")
    due = present(lifecycle.on_timer(later, kit.store.now(), kit.rng))
    equal(await kit.put(due, 1), True, "an undisputed step is stored")
    equal(ids(await kit.claim()), [later.id], "a job that became ready is claimed")


@check()
async def fences_grow(kit: Kit) -> None:
    """Each claim's token is larger than all before: across jobs, sessions, attempts and runs."""
    await kit.new(20)
    await kit.session("s1")
    await kit.session("s2")
    fences: list[int] = []
    for round_ in range(30):
        session = ("s1", "s2")[round_ % 2]
        taken = await kit.claim(3, session=session)
        fences += [job.fence for job in taken]
        for job in taken:
            after = lifecycle.released(job, kit.store.now(), 0)
            equal(await kit.put(after, job.version), True, "an undisputed release is stored")
    equal(len(fences), 90, "every round claims")
    true(fences[0] > 0, "a token is positive")
    true(all(a < b for a, b in pairwise(fences)), "each token is larger than the one before")


@check()
async def no_job_is_claimed_twice(kit: Kit) -> None:
    """Eight sessions claim at once, in batches: each job goes to exactly one of them, with a token of its own."""
    jobs = await kit.new(200) + await kit.new(200, queue="side", priority=1)
    for n in range(_CLAIMERS):
        await kit.session(f"c{n}")

    async def drain(session: str) -> list[Job]:
        mine: list[Job] = []
        while some := await kit.claim(7, session=session):
            true(all(job.session == session for job in some), "the record names the session")
            mine += some
            true(len(mine) <= len(jobs), "no more is claimed than there is")
        return mine

    taken = await asyncio.gather(*(drain(f"c{n}") for n in range(_CLAIMERS)))
    every = [job for mine in taken for job in mine]
    equal(len(every), len({job.id for job in every}), "no job is claimed twice")
    left = await kit.claim(1_000, session="c0")
    equal(sorted(job.id for job in every + left), sorted(job.id for job in jobs), "every job is claimed")
    equal(len({job.fence for job in every}), len(every), "each claim has a token of its own")
    for n, mine in enumerate(taken):
        held = await kit.store.held(f"c{n}", 1_000)
        true({job.id for job in mine} <= {job.id for job in held}, "a session holds what it claimed")


@check()
async def claims_race_with_other_steps(kit: Kit) -> None:
    """A claim and a cancellation of the same ready job: one wins, and the record agrees with it."""
    jobs = await kit.new(60)
    await kit.session()

    async def cancel(job: Job) -> bool:
        return await kit.put(lifecycle.cancelled(job, kit.store.now()), job.version)

    answers = await asyncio.gather(kit.claim(20), *(cancel(job) for job in jobs), kit.claim(20), kit.claim(20))
    claims = [job for answer in answers if isinstance(answer, list) for job in answer]
    stopped = [job.id for job, won in zip(jobs, answers[1:-2], strict=True) if won is True]
    equal(sorted([job.id for job in claims] + stopped), [job.id for job in jobs], "each job is claimed or cancelled")
    for job in await kit.store.get([job.id for job in jobs]):
        wanted = State.CANCELLED if present(job).id in stopped else State.RUNNING
        equal(present(job).state, wanted, "the record agrees with who won")


@check()
async def a_session_that_is_over_claims_nothing(kit: Kit) -> None:
    """Unknown, closed and expired sessions get no jobs."""
    (job,) = await kit.new(1)
    equal(await kit.claim(session="unknown"), [], "an unknown session")
    await kit.session("closed")
    await kit.store.close_session("closed")
    equal(await kit.claim(session="closed"), [], "a closed session")
    await kit.lapse("short")
    equal(await kit.claim(session="short"), [], "an expired session")
    await kit.session("good")
    equal(ids(await kit.claim(session="good")), [job.id], "the job is still there for a good one")


@check()
async def ahead_counts_what_would_be_claimed_before(kit: Kit) -> None:
    """Ready jobs of the same type with a better priority, or with the same and ready longer; queues do not matter."""
    jobs = [
        kit.job(priority=priority, since=since, queue=queue)
        for priority, since, queue in (
            (1, 0, "main"), (1, -5, "side"), (0, -30, "main"), (0, -20, "side"), (0, -10, "main"), (-1, -99, "main"),
        )
    ]  # fmt: skip
    await kit.insert(*jobs)
    await kit.new(3, type="rest", priority=9)
    await kit.new(1, delay=HOUR, priority=9)
    order = sorted(jobs, key=lambda job: (-job.spec.priority, job.next_start, job.id))
    equal([await kit.store.ahead(job) for job in order], [0, 1, 2, 3, 4, 5], "each has those before it ahead")
    await kit.session()
    taken = await kit.claim(2)
    equal([await kit.store.ahead(job) for job in order[2:]], [0, 1, 2, 3], "claimed jobs are not ahead any more")
    for job in taken:
        back = lifecycle.released(job, job.next_start, 0)
        equal(await kit.put(back, job.version), True, "an undisputed release is stored")
    equal([await kit.store.ahead(job) for job in order], [0, 1, 2, 3, 4, 5], "jobs that came back are")


@check()
async def a_zombie_is_refused(kit: Kit) -> None:
    """A worker that comes back after its job was given to another one can neither finish it nor report about it."""
    await kit.new(1)
    await kit.session("old")
    (mine,) = await kit.claim(session="old")
    await kit.lapse("old")
    equal(await kit.store.expired(10), ["old"], "a session that was not renewed")
    (held,) = await kit.store.held("old", 10)
    rescued = lifecycle.lost(held, kit.store.now(), kit.rng)
    equal(await kit.put(rescued, held.version), True, "the rescue is stored")
    await kit.store.close_session("old")
    await kit.session("new")
    (other,) = await kit.claim(session="new")
    equal((other.id, other.attempt), (mine.id, 2), "another worker makes the next attempt")
    true(other.fence > mine.fence, "with a larger token")
    done = lifecycle.ended(mine, kit.store.now(), Succeeded(EMPTY), kit.rng)
    equal(await kit.put(done, mine.version), False, "the zombie's end is refused")
    true(not lifecycle.holds(await kit.get(mine), mine.fence), "its token does not hold any more")
    late = Update(mine.id, mine.fence, None, (LogLine(Severity.INFO, "late"),))
    equal(await kit.store.report([late]), [False], "its report is refused")
    equal(await kit.get(mine), other, "the record is untouched")
    await kit.finish(other)


@check()
async def rescue_and_finish_race(kit: Kit) -> None:
    """The worker's own end and its rescue at the same moment: exactly one is stored."""
    jobs = await kit.new(20)
    await kit.session()
    for job in await kit.claim(len(jobs)):
        now = kit.store.now()
        ends = [lifecycle.ended(job, now, Succeeded(EMPTY), kit.rng), lifecycle.lost(job, now + SECOND, kit.rng)]
        won = await asyncio.gather(*(kit.put(end, job.version) for end in ends))
        equal(sum(won), 1, "one of the two wins")
        equal(await kit.get(job), ends[won.index(True)], "and its record is the stored one")
