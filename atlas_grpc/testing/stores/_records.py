"""Insert, get, put, delete."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from ... import lifecycle
from ...errors import Code
from ...model import Content, Failed, Failure, Job, JobSpec, RetryPolicy, State, Succeeded
from ...stores.base import Filter
from ._kit import EMPTY, HOUR, Kit, check, equal, ids, present, true

_WRITERS = 8


@check()
async def insert_answers_the_stored_job(kit: Kit) -> None:
    """An insert answers the jobs in order, and they can be read back."""
    jobs = [kit.job() for _ in range(3)]
    equal(await kit.store.insert(jobs), jobs, "insert answers each given job")
    equal(await kit.store.get([job.id for job in jobs]), jobs, "a stored job equals the one that was inserted")


@check()
async def nothing_in_nothing_out(kit: Kit) -> None:
    """Every operation takes an empty batch."""
    store = kit.store
    await kit.session()
    equal(await store.insert([]), [], "insert")
    equal(await store.get([]), [], "get")
    equal(await store.put([], []), [], "put")
    equal(await store.delete([]), [], "delete")
    equal(await store.claim("s1", "w", [], 10), [], "claim")
    equal(await store.renew([], HOUR), [], "renew")
    equal(await store.report([]), [], "report")
    equal(await store.outputs([]), [], "outputs")
    equal(await store.due(10), ([], None), "due")
    equal(await store.expired(10), [], "expired")
    equal(await store.held("s1", 10), [], "held")


@check()
async def a_named_job_is_inserted_once(kit: Kit) -> None:
    """A later insert with the same request id answers the first job, whatever it asked for and however it went on."""
    (first,) = await kit.new(1, request_id="r")
    other = kit.job(request_id="r", type="other", payload=Content(b'{"x":1}'))
    equal(await kit.insert(other), [first], "a repeated request id answers the first job")
    equal(await kit.store.get([other.id]), [None], "the repeat is not stored")
    moved = await kit.step(first)
    equal(await kit.insert(kit.job(request_id="r")), [moved], "the answer is the job as it is now")


@check()
async def a_name_twice_in_one_batch(kit: Kit) -> None:
    """The first of a batch wins; the others of the name are answered with it."""
    first, plain, second = kit.job(request_id="r"), kit.job(), kit.job(request_id="r")
    equal(await kit.insert(first, plain, second), [first, plain, first], "the later of a name gets the earlier")
    equal(await kit.store.get([second.id]), [None], "the later one is not stored")
    page = await kit.store.find(_all(), None, 10)
    equal(ids(page.jobs), [plain.id, first.id], "nor listed")


@check()
async def a_name_in_a_race(kit: Kit) -> None:
    """Eight writers insert the same three names at once: three jobs, and all are told the same ones."""
    batches = [[kit.job(request_id=f"r{n}") for n in range(3)] for _ in range(_WRITERS)]
    answers = await asyncio.gather(*(kit.insert(*batch) for batch in batches))
    equal({tuple(ids(answer)) for answer in answers}, {tuple(ids(answers[0]))}, "all writers are told the same jobs")
    page = await kit.store.find(_all(), None, 100)
    equal(sorted(job.id for job in page.jobs), sorted(job.id for job in answers[0]), "and these are all there are")


@check()
async def names_in_opposite_orders(kit: Kit) -> None:
    """Writers whose batches name the same jobs in opposite orders do not block each other."""
    names = [f"r{n}" for n in range(20)]
    batches = [[kit.job(request_id=name) for name in (names if n % 2 else names[::-1])] for n in range(_WRITERS)]
    answers = await asyncio.gather(*(kit.insert(*batch) for batch in batches))
    told = {tuple(sorted(job.id for job in answer)) for answer in answers}
    equal(len(told), 1, "all writers are told the same jobs")


@check()
async def names_belong_to_a_namespace(kit: Kit) -> None:
    """The same request id in another namespace names another job; an empty one names none."""
    first, second = kit.job(namespace="a", request_id="r"), kit.job(namespace="b", request_id="r")
    equal(await kit.insert(first, second), [first, second], "request ids of two namespaces")
    unnamed = [kit.job(), kit.job()]
    equal(await kit.insert(*unnamed), unnamed, "jobs without a request id")


@check()
async def get_keeps_order_and_says_none(kit: Kit) -> None:
    """Answers stand in the order of the ids, repeats too; what cannot be an id is merely unknown."""
    a, b = await kit.new(2)
    wild = ["", "no-such-job", "'; drop table jobs; --", "\x00", "é" * 2_000, a.id.upper() + "0"]
    found = await kit.store.get([b.id, wild[0], a.id, b.id, *wild[1:]])
    equal(ids(found), [b.id, None, a.id, b.id] + [None] * (len(wild) - 1), "get answers id by id")


@check()
async def every_field_survives(kit: Kit) -> None:
    """A record comes back equal, whatever is in it."""
    payload = Content(bytes(range(256)), "application/x-thing; v=1")
    labels = {"Ключ": "значение", "empty": "", "quote": "'\"\\{}%"}
    policy = RetryPolicy(7, 123_456_789, 1.5, 987_654_321, 0.1, ("A_REASON", "B_REASON"))
    created = kit.store.now()
    spec = JobSpec(
        kit.job().id, "ns-é", "t/y.p e", "q:1", payload, policy, created, created, HOUR, labels, -5, "request 1",
        b"\x00\xff" * 8, 1_000_001, HOUR, HOUR + 1, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip
    job = lifecycle.submitted(spec)
    equal(await kit.insert(job), [job], "a job with everything in it")
    equal(await kit.get(job), job, "is read back equal")
    for after in _life(kit, job):
        equal(await kit.put(after, job.version), True, "an undisputed step is stored")
        job = after
        equal(await kit.get(job), job, f"version {job.version} is read back equal")


def _life(kit: Kit, job: Job) -> list[Job]:
    """A job's records through a life with everything in it."""
    now, rng = kit.store.now(), kit.rng
    fence = 2**53 + 1
    life = [lifecycle.started(job, now, session="s", worker="w-é", fence=fence)]
    failure = Failure(Code.UNKNOWN, "HANDLER_FAILED", "ünprintable \x01 \N{PILE OF POO} " + "x" * 5_000)
    life.append(lifecycle.ended(life[-1], now, Failed(failure, retry_in=77), rng))
    timer = lifecycle.on_timer(life[-1], now + 77, rng)
    life.append(present(timer))
    life.append(lifecycle.started(life[-1], now + 78, session="s", worker="w", fence=fence + 1))
    life.append(lifecycle.request_cancel(life[-1], now + 79, "why not", HOUR))
    life.append(lifecycle.ended(life[-1], now + 80, Failed(failure), rng))
    life.append(lifecycle.new_run(life[-1], now + 81))
    life.append(lifecycle.started(life[-1], now + 82, session="s", worker="w", fence=fence + 2))
    life.append(lifecycle.ended(life[-1], now + 83, Succeeded(Content(b"\x00\x01", "")), rng))
    return life


@check()
async def a_long_life_survives(kit: Kit) -> None:
    """A history as long as it gets, and a payload and a result of a megabyte."""
    big = Content(b'"' + b"x" * 1_000_000 + b'"')
    (job,) = await kit.new(1, payload=big)
    grown = job
    while len(grown.history) < lifecycle.MAX_HISTORY or grown.state is not State.PENDING:
        taken = lifecycle.started(grown, grown.update_time + 1, session="s", worker="w", fence=grown.fence + 1)
        grown = lifecycle.released(taken, taken.update_time + 1, 0)
    taken = lifecycle.started(grown, grown.update_time + 1, session="s", worker="w", fence=grown.fence + 1)
    done = lifecycle.ended(taken, taken.update_time + 1, Succeeded(big), kit.rng)
    equal(await kit.put(done, job.version), True, "put may skip versions")
    true(await kit.get(job) == done, "a large record is read back equal")


@check()
async def put_is_compare_and_set(kit: Kit) -> None:
    """Only the expected version is replaced; what is stale or gone is said, job by job, and left alone."""
    fresh, stale, gone = await kit.new(3)
    moved = await kit.step(stale)
    equal(await kit.store.delete([gone]), [True], "an undisputed delete")
    batch = [lifecycle.cancelled(job, kit.store.now()) for job in (stale, fresh, gone)]
    equal(await kit.store.put(batch, [1, 1, 1]), [False, True, False], "put of stale, fresh and gone")
    equal(
        await kit.store.get([fresh.id, stale.id, gone.id]),
        [batch[1], moved, None],
        "only the fresh one was replaced",
    )
    equal(await kit.put(lifecycle.new_run(batch[1], kit.store.now()), 7), False, "a version that never was")


@check()
async def put_needs_the_running_token(kit: Kit) -> None:
    """Of a running job the version is not enough: a record without its token is stale. Else there is none to match."""
    taken = await kit.running()
    now = kit.store.now()
    late = replace(taken, fence=taken.fence - 1)
    for after in (
        lifecycle.ended(late, now, Succeeded(EMPTY), kit.rng),
        lifecycle.released(late, now, 0),
        lifecycle.request_cancel(late, now, "why not", HOUR),
    ):
        equal(await kit.put(after, taken.version), False, "a put with another token than the running one")
    equal(await kit.get(taken), taken, "the running job is left alone")
    done = await kit.finish(taken)
    again = replace(lifecycle.new_run(done, now), fence=done.fence + 5)
    equal(await kit.put(again, done.version), True, "a job that does not run has no token to match")


@check()
async def one_of_two_writers_wins(kit: Kit) -> None:
    """Of writers that hold the same version exactly one is told that it won, and its record is the stored one."""
    for job in await kit.new(10):
        now = kit.store.now()
        writes = [lifecycle.request_cancel(job, now, f"by {n}", HOUR) for n in range(_WRITERS)]
        won = await asyncio.gather(*(kit.put(write, job.version) for write in writes))
        equal(sum(won), 1, "exactly one of the writers wins")
        equal(await kit.get(job), writes[won.index(True)], "the record is the winner's")


@check()
async def opposite_orders_do_not_deadlock(kit: Kit) -> None:
    """Batches of the same jobs in opposite orders are all answered; each job is moved by one of them."""
    jobs = await kit.new(20)
    now = kit.store.now()
    batches = [
        [lifecycle.request_cancel(job, now, f"by {n}", HOUR) for job in (jobs if n % 2 else jobs[::-1])]
        for n in range(_WRITERS)
    ]
    answers = await asyncio.gather(*(kit.store.put(batch, [1] * len(batch)) for batch in batches))
    winners = [
        job.id for batch, won in zip(batches, answers, strict=True) for job, ok in zip(batch, won, strict=True) if ok
    ]
    equal(sorted(winners), [job.id for job in jobs], "each job is moved exactly once")


@check()
async def delete_is_compare_and_delete(kit: Kit) -> None:
    """Only the given version is deleted, once; its name is free afterwards."""
    fresh, stale = await kit.new(1, request_id="r") + await kit.new(1, request_id="s")
    moved = await kit.step(stale)
    unknown = kit.job()
    equal(await kit.store.delete([stale, fresh, unknown]), [False, True, False], "delete of stale, fresh and unknown")
    equal(await kit.store.delete([fresh]), [False], "a second delete")
    equal(await kit.store.get([fresh.id, stale.id]), [None, moved], "only the fresh one is gone")
    again = kit.job(request_id="r")
    equal(await kit.insert(again), [again], "the name of a deleted job is free")
    equal(ids(await kit.insert(kit.job(request_id="s"))), [stale.id], "that of the other is not")


@check()
async def a_deleted_job_is_nowhere(kit: Kit) -> None:
    """It is not listed, claimed, due, held, counted, and has no output."""
    job = await kit.running(retention=0)
    done = await kit.finish(job)
    (ready,) = await kit.new(1)
    equal(await kit.store.delete([done, ready]), [True, True], "delete of a finished and a waiting job")
    equal((await kit.store.find(_all(), None, 10)).jobs, (), "find")
    equal(await kit.claim(), [], "claim")
    equal(await kit.store.due(10), ([], None), "due")
    equal(await kit.store.held("s1", 10), [], "held")
    counts = await kit.store.counts()
    equal(sum(counts.states.values()), 0, "counts by state")
    equal(counts.queues, (), "counts by queue")
    equal(await kit.store.logs(job.id, 0, 10), [], "logs")


def _all() -> Filter:
    return Filter("default")
