"""Worker sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ... import lifecycle
from ...model import State
from ...stores.base import MAX_INFO
from ._kit import HOUR, SHORT, Kit, check, equal, ids, present, refused, true

if TYPE_CHECKING:
    from ...model import Job


@check()
async def a_session_lives_while_it_is_renewed(kit: Kit) -> None:
    """Renewing extends from now on; without it the session expires, and cannot be renewed any more."""
    await kit.session("kept", ttl=SHORT)
    equal(await kit.store.renew(["kept"], HOUR), [True], "a living session is renewed")
    await kit.lapse("lapsed")
    equal(await kit.store.expired(10), ["lapsed"], "only the one that was not renewed expires")
    equal(
        await kit.store.renew(["lapsed", "kept", "unknown"], HOUR),
        [False, True, False],
        "expired and unknown sessions are not renewed",
    )
    equal(await kit.store.expired(10), ["lapsed"], "an expired session stays so until it is closed")
    await kit.store.close_session("lapsed")
    equal(await kit.store.expired(10), [], "a closed one is forgotten")
    equal(await kit.store.renew(["lapsed"], HOUR), [False], "and cannot be renewed")


@check()
async def a_session_may_be_opened_again(kit: Kit) -> None:
    """Opening a session that is open, expired or closed gives it a new term; opening and closing twice is harmless."""
    await kit.lapse("s1")
    await kit.session("s1")
    equal(await kit.store.expired(10), [], "an expired session that was opened again lives")
    equal(await kit.store.renew(["s1"], HOUR), [True], "and can be renewed")
    await kit.session("s1")
    await kit.store.close_session("s1")
    await kit.store.close_session("s1")
    await kit.store.close_session("unknown")
    equal(await kit.store.renew(["s1"], HOUR), [False], "it is closed")
    await kit.session("s1")
    equal(await kit.store.renew(["s1"], HOUR), [True], "a closed one may be opened again")


@check()
async def expired_answers_no_more_than_its_limit(kit: Kit) -> None:
    """Sessions are worked off in batches."""
    names = {f"s{n}" for n in range(5)}
    for name in sorted(names):
        await kit.lapse(name)
    some = await kit.store.expired(2)
    equal(len(some), 2, "the limit holds")
    for name in some:
        await kit.store.close_session(name)
    equal(set(await kit.store.expired(10)), names - set(some), "the rest is still there")


@check()
async def held_is_what_a_session_runs(kit: Kit) -> None:
    """The running jobs of this session: claimed ones join, those that moved on leave."""
    await kit.new(6)
    await kit.session("s1")
    await kit.session("s2")
    mine = await kit.claim(4, session="s1")
    other = await kit.claim(4, session="s2")
    equal(_by_id(await kit.store.held("s1", 10)), _by_id(mine), "the jobs of the first")
    equal(_by_id(await kit.store.held("s2", 10)), _by_id(other), "the jobs of the second")
    equal(len(await kit.store.held("s1", 3)), 3, "the limit holds")
    equal(await kit.store.held("unknown", 10), [], "an unknown session holds nothing")
    await kit.finish(mine[0])
    back = lifecycle.released(mine[1], kit.store.now(), HOUR)
    marked = lifecycle.request_cancel(mine[2], kit.store.now(), "", HOUR)
    equal(await kit.store.put([back, marked], [2, 2]), [True, True], "undisputed steps are stored")
    equal(_by_id(await kit.store.held("s1", 10)), _by_id([marked, mine[3]]), "finished and released ones left")
    gone = present((await kit.store.get([mine[3].id]))[0])
    equal(await kit.store.delete([gone]), [True], "an undisputed delete")
    equal(await kit.store.held("s1", 10), [marked], "a deleted one left")


def _by_id(jobs: list[Job]) -> dict[str, Job]:
    return {job.id: job for job in jobs}


@check()
async def closing_leaves_the_jobs(kit: Kit) -> None:
    """A closed session's jobs stay as they are and can be found by it; while it holds some it counts as expired, so
    that they are rescued even if nobody saw the close."""
    (job,) = await kit.new(1)
    await kit.session()
    (taken,) = await kit.claim()
    await kit.store.close_session("s1")
    equal(await kit.get(job), taken, "the job is as it was")
    equal(await kit.store.held("s1", 10), [taken], "and can be found by its session")
    equal(await kit.store.expired(10), ["s1"], "a closed session with jobs waits for rescue")
    back = lifecycle.released(taken, kit.store.now(), 0)
    equal(await kit.put(back, taken.version), True, "an undisputed release is stored")
    equal(await kit.store.expired(10), [], "without jobs it is forgotten")
    equal(await kit.store.held("s1", 10), [], "and holds nothing")


@check()
async def an_expired_session_gives_its_jobs_up_once(kit: Kit) -> None:
    """A rescue in batches: each job is handed out once, then the session is closed and the jobs go to another one."""
    jobs = await kit.new(10)
    await kit.session()
    await kit.claim(10)
    await kit.lapse("s1")
    rescued: list[str] = []
    for _ in range(len(jobs)):
        held = await kit.store.held("s1", 3)
        if not held:
            break
        after = [lifecycle.lost(job, kit.store.now(), kit.rng) for job in held]
        true(all(await kit.store.put(after, [job.version for job in held])), "nobody else moves them")
        rescued += [job.id for job in held]
    equal(sorted(rescued), [job.id for job in jobs], "each is rescued once")
    await kit.store.close_session("s1")
    equal(await kit.store.expired(10), [], "the session is forgotten")
    await kit.session("s2")
    taken = await kit.claim(10, session="s2")
    equal(sorted(ids(taken), key=str), [job.id for job in jobs], "another session gets them")
    true(all(job.state is State.RUNNING and job.crashes == 1 for job in taken), "with the crash counted")


@check()
async def sessions_tell_of_themselves(kit: Kit) -> None:
    """Those that are open, each with its info, in the order of their ids. Renewing leaves the info, opening replaces
    it."""
    equal(await kit.store.sessions(), [], "nobody is there")
    every_byte = bytes(range(256))
    for name, info in (("b", every_byte), ("a", b"first"), ("c", b"")):
        await kit.session(name, info=info)
    await kit.store.open_session("ä", HOUR)
    everybody = [("a", b"first"), ("b", every_byte), ("c", b""), ("ä", b"")]
    equal(await kit.store.sessions(), everybody, "all are told, in order; who tells nothing has an empty info")
    equal(await kit.store.renew(["b", "a"], HOUR), [True, True], "living sessions are renewed")
    equal(await kit.store.sessions(), everybody, "renewing leaves the infos")
    await kit.session("a", info=b"second")
    await kit.session("b")
    everybody[:2] = [("a", b"second"), ("b", b"")]
    equal(await kit.store.sessions(), everybody, "opening again replaces the info, by nothing too")
    await kit.store.close_session("a")
    equal(await kit.store.sessions(), everybody[1:], "a closed session is not told")
    await kit.session("a")
    equal(await kit.store.sessions(), [("a", b""), *everybody[1:]], "and leaves no info to the next of its name")


@check()
async def only_living_sessions_are_told(kit: Kit) -> None:
    """Neither one that has expired nor one that was closed while it held jobs; one that was opened again is."""
    await kit.new(1)
    await kit.session("held", info=b"holds")
    await kit.claim(session="held")
    await kit.session("s1", ttl=SHORT, info=b"short")
    await kit.session("s2", ttl=SHORT, info=b"first")
    await kit.session("s2", info=b"second")
    await kit.lapse("over")
    equal(
        await kit.store.sessions(), [("held", b"holds"), ("s2", b"second")], "who expired is not told; s2 was extended"
    )
    await kit.store.close_session("held")
    equal(await kit.store.sessions(), [("s2", b"second")], "a closed one that still holds jobs is not told")
    equal(await kit.store.renew(["s1"], HOUR), [False], "an expired one is not renewed")
    await kit.session("s1", info=b"again")
    equal(await kit.store.sessions(), [("s1", b"again"), ("s2", b"second")], "opened again, it is told")


@check()
async def an_info_is_bounded(kit: Kit) -> None:
    """What is too large is refused, and the session is as it was."""
    large = b"x" * MAX_INFO
    await kit.session("s1", info=large)
    true(await refused(kit.session("s1", info=large + b"y"), ValueError), "an info that is too large is refused")
    true(await refused(kit.session("s2", info=large + b"y"), ValueError), "also that of a new session")
    equal(await kit.store.sessions(), [("s1", large)], "nothing changed")


@check()
async def many_sessions_are_told(kit: Kit) -> None:
    """All of them, however many."""
    names = [f"s{n:03}" for n in range(400)]
    await asyncio.gather(*(kit.session(name, info=name.encode() * 50) for name in names))
    equal(await kit.store.sessions(), [(name, name.encode() * 50) for name in names], "all are told")
