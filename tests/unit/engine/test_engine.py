"""What the engine does for those who submit and read: request ids, group commit, pages, waits, explanations."""

from __future__ import annotations

import asyncio

import pytest

from atlas_grpc.engine.submit import RetryOverride, Submission
from atlas_grpc.errors import InvalidArgument, JobNotFound, RequestIdReused, ServerDraining, StoreFull, Unavailable
from atlas_grpc.model import EMPTY_OBJECT, SECOND, Content, State
from atlas_grpc.stores.base import Filter
from atlas_grpc.stores.memory import MemoryLimits
from tests.unit.engine.world import NS, World, a_world, boom


def sub(request_id: str = "", **more) -> Submission:
    return Submission(NS, more.pop("type", "work"), request_id=request_id, **more)


async def test_a_request_id_100_times_at_once_makes_one_job():
    async with a_world(slow=True) as world:
        payload = Content(b'{"n":1}')
        answers = await asyncio.gather(*(world.engine.submit(sub("same", payload=payload)) for _ in range(100)))
        assert len({answer.job.id for answer in answers}) == 1
        assert sum(not answer.deduplicated for answer in answers) == 1
        page, _ = await world.engine.list(Filter(NS), "", 1000)
        assert len(page) == 1


async def test_a_repeat_answers_the_job_as_it_is_now(world: World):
    first = await world.engine.submit(sub("r"))
    worker = await world.worker()
    await worker.end(await worker.take_one())
    again = await world.engine.submit(sub("r", traceparent="00-another-trace"))
    assert again.deduplicated
    assert (again.job.id, again.job.state) == (first.job.id, State.SUCCESS)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"type": "jittery"}, ["type", "retry_policy"]),
        ({"payload": Content(b'{"n":2}')}, ["payload"]),
        ({"payload": Content(EMPTY_OBJECT.data, "")}, ["payload"]),
        ({"queue": "fast"}, ["queue"]),
        ({"labels": {"a": "2"}}, ["labels"]),
        ({"priority": 1}, ["priority"]),
        ({"retry": RetryOverride(max_attempts=9)}, ["retry_policy"]),
        ({"attempt_timeout": 1}, ["attempt_timeout"]),
        ({"total_timeout": 1}, ["total_timeout"]),
        ({"start_timeout": 1}, ["start_timeout"]),
        ({"retention": 1}, ["retention"]),
        ({"start_delay": 5 * SECOND}, ["start_time"]),
    ],
)
async def test_a_reused_request_id_names_what_differs(world: World, changed: dict, named: list[str]):
    first = await world.engine.submit(sub("r", labels={"a": "1"}))
    with pytest.raises(RequestIdReused) as caught:
        await world.engine.submit(sub("r", **{"labels": {"a": "1"}, **changed}))
    assert caught.value.metadata["differs"].split(",") == named
    assert caught.value.metadata["job_id"] == first.job.id
    assert all(name in caught.value.message for name in named)


async def test_the_same_request_a_little_later_is_the_same(world: World):
    start = world.clock.now() + 100 * SECOND
    first = await world.engine.submit(sub("a", start_delay=5 * SECOND))
    other = await world.engine.submit(sub("b", start_time=start))
    await world.advance(2)
    assert (await world.engine.submit(sub("a", start_delay=5 * SECOND))).job.id == first.job.id
    assert (await world.engine.submit(sub("b", start_time=start))).job.id == other.job.id


async def test_request_ids_belong_to_a_namespace_and_end_with_the_job(world: World):
    first = (await world.engine.submit(sub("r"))).job
    other = (await world.engine.submit(Submission("elsewhere", "work", request_id="r"))).job
    assert other.id != first.id
    await world.engine.cancel(NS, first.id, "", None)
    await world.engine.delete(NS, first.id, None)
    assert not (await world.engine.submit(sub("r", priority=3))).deduplicated


async def test_a_batch_answers_item_by_item(world: World):
    refused = InvalidArgument.of("type", "is missing")
    bad = Content(b'{"bad":1}')
    answers = await world.engine.submit_many(
        [sub("a"), refused, sub("a"), sub("a", priority=1), sub(type="nobody"), sub(payload=bad), sub()]
    )
    ok = [answer for answer in answers if not isinstance(answer, Exception)]
    assert [type(answer).__name__ for answer in answers] == [
        "Submitted", "InvalidArgument", "Submitted", "RequestIdReused", "InvalidArgument", "InvalidArgument",
        "Submitted",
    ]  # fmt: skip
    assert answers[1] is refused
    assert [answer.deduplicated for answer in ok] == [False, True, False]
    assert ok[0].job.id == ok[1].job.id < ok[2].job.id
    assert answers[4].reason == "UNKNOWN_JOB_TYPE"
    assert [violation.field for violation in answers[5].violations] == ["payload.bad"]


async def test_concurrent_submits_share_a_commit(world: World):
    world.store.calls.clear()
    world.store.gates["insert"] = asyncio.Event()
    calls = [asyncio.ensure_future(world.engine.submit(sub())) for _ in range(500)]
    await world.clock.settle()
    world.store.gates["insert"].set()
    answers = await asyncio.gather(*calls)
    assert world.store.calls.count("insert") == 1
    assert len({answer.job.id for answer in answers}) == 500


async def test_a_failed_commit_fails_its_callers_and_not_the_next(world: World):
    def fault(name: str) -> None:
        if name == "insert":
            raise Unavailable("the store is away")

    world.store.fault = fault
    results = await asyncio.gather(*(world.engine.submit(sub()) for _ in range(10)), return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    world.store.fault = lambda _name: None
    assert (await world.engine.submit(sub())).job.state is State.PENDING


async def test_a_caller_that_leaves_takes_nobody_along(world: World):
    world.store.gates["insert"] = asyncio.Event()
    calls = [asyncio.ensure_future(world.engine.submit(sub(f"r{n}"))) for n in range(20)]
    await world.clock.settle()
    calls[0].cancel()
    calls[7].cancel()
    await world.clock.settle()
    world.store.gates["insert"].set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, result in enumerate(results) if isinstance(result, asyncio.CancelledError)] == [0, 7]
    assert not any(isinstance(result, Exception) for result in results)
    assert (await world.engine.submit(sub("r7"))).deduplicated, "what was handed in is stored all the same"


async def test_ids_grow_with_every_submit(world: World):
    answers = await world.engine.submit_many([sub() for _ in range(100)])
    later = [(await world.engine.submit(sub())).job.id for _ in range(10)]
    ids = [answer.job.id for answer in answers] + later
    assert ids == sorted(set(ids))


async def test_a_full_store_says_so():
    async with a_world(limits=MemoryLimits(max_pending=2)) as world:
        for _ in range(2):
            await world.submit()
        with pytest.raises(StoreFull) as caught:
            await world.submit()
        assert caught.value.retry_after
        answers = await world.engine.submit_many([sub(), sub()])
        assert [type(answer) for answer in answers] == [StoreFull, StoreFull]
        worker = await world.worker()
        await worker.end(await worker.take_one())
        await world.submit()


async def test_a_plan_stores_nothing(world: World):
    spec, timetable = await world.engine.plan(sub(retry=RetryOverride(max_attempts=4, jitter=0.5)))
    assert (spec.retry.max_attempts, spec.retry.initial_backoff) == (4, SECOND)
    assert [(line.earliest, line.latest) for line in timetable] == [
        (0, 0),
        (SECOND // 2, SECOND * 3 // 2),
        (SECOND * 3 // 2, SECOND * 9 // 2),
        (SECOND * 7 // 2, SECOND * 21 // 2),
    ]
    assert (await world.engine.list(Filter(NS), "", 10))[0] == ()


async def test_pages_follow_each_other_without_gap_or_repeat(world: World):
    ids = [await world.submit() for _ in range(25)]
    token, seen, pages = "", [], 0
    while True:
        page, token = await world.engine.list(Filter(NS), token, 10)
        seen += [job.id for job in page]
        pages += 1
        if pages == 1:
            await world.submit()
        if not token:
            break
    assert seen == ids[::-1]
    assert pages == 3
    _, token = await world.engine.list(Filter(NS), "", 10)
    for where in (Filter("elsewhere"), Filter(NS, states=frozenset({State.PENDING}))):
        with pytest.raises(InvalidArgument) as caught:
            await world.engine.list(where, token, 10)
        assert caught.value.reason == "INVALID_TOKEN"


async def test_a_wait_answers_at_the_end_or_when_the_time_is_up(world: World):
    job_id = await world.submit(retention=0)
    assert (await world.engine.wait(NS, job_id, 0.01)).state is State.PENDING
    waiting = [asyncio.ensure_future(world.engine.wait(NS, job_id, 30)) for _ in range(5)]
    worker = await world.worker()
    await worker.end(await worker.take_one())
    await world.clock.settle()
    jobs = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert {job.state for job in jobs} == {State.SUCCESS}, "also when it is deleted at once"
    assert not world.engine.hub.open_watches()["WatchJob"]


async def test_a_wait_ends_when_the_server_drains(world: World):
    job_id = await world.submit()
    waiting = asyncio.ensure_future(world.engine.wait(NS, job_id, 30))
    await world.clock.settle()
    await world.engine.hub.drain()
    with pytest.raises(ServerDraining):
        await asyncio.wait_for(waiting, 5)


async def test_explanations_say_what_is_waited_for(world: World):
    engine = world.engine
    first = await world.submit()
    second = await world.submit()
    assert "no connected worker serves type 'work'" in (await engine.explain(NS, first)).summary
    worker = await world.worker()
    ahead = await engine.explain(NS, second)
    assert (ahead.ahead, ahead.slots, ahead.busy) == (1, 1000, 0)
    taken = await worker.take_one()
    assert "has been running on w1" in (await engine.explain(NS, first)).summary
    assert (await engine.explain(NS, second)).busy == 1
    await worker.end(taken, boom("FULL_MOON"))
    found = await engine.explain(NS, first)
    assert "FULL_MOON" in found.summary
    assert found.next_time == world.clock.now() + SECOND
    delayed = await world.submit(start_delay=60 * SECOND)
    assert (await engine.explain(NS, delayed)).next_time == world.clock.now() + 60 * SECOND
    with pytest.raises(JobNotFound):
        await engine.explain(NS, "no-such-job")
