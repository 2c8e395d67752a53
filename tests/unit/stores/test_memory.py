"""What is particular to the memory store: what an operation costs, and that nothing grows for ever."""

from __future__ import annotations

import gc
import math
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import lifecycle
from atlas_grpc.clock import uuid7
from atlas_grpc.model import (
    SECOND,
    Ask,
    Content,
    Job,
    JobSpec,
    LogLine,
    RetryPolicy,
    Severity,
    State,
    Succeeded,
    Update,
)
from atlas_grpc.stores import memory
from atlas_grpc.stores._ready import ReadyIndex
from atlas_grpc.stores.base import Filter
from atlas_grpc.stores.memory import MemoryLimits, MemoryStore
from atlas_grpc.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

RNG = random.Random(1)
DONE = Succeeded(Content(b"1"))
HOUR = 3600 * SECOND


class World:
    """A memory store on a clock that a test moves."""

    def __init__(self, limits: MemoryLimits | None = None) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock, limits)
        self.last_id = self.clock.now()

    def job(self, *, namespace: str = "default", delay: int = 0, retention: int = HOUR, **fields: Any) -> Job:
        self.last_id += 1
        now = self.clock.now()
        spec = JobSpec(
            uuid7(self.last_id, RNG),
            namespace,
            "work",
            "main",
            Content(b"{}"),
            RetryPolicy(),
            now,
            now + delay,
            retention,
            **fields,
        )
        return lifecycle.submitted(spec)

    async def fill(self, count: int, **fields: Any) -> list[Job]:
        jobs = [self.job(**fields) for _ in range(count)]
        assert await self.store.insert(jobs) == jobs
        return jobs

    async def open(self) -> None:
        await self.store.open_session("s", 10**6 * HOUR)

    async def claim(self, limit: int) -> list[Job]:
        return await self.store.claim("s", "w", [Ask("work", limit)], limit)

    async def finish(self, jobs: list[Job]) -> list[Job]:
        done = [lifecycle.ended(job, self.clock.now(), DONE, RNG) for job in jobs]
        assert all(await self.store.put(done, [job.version for job in jobs]))
        return done


# What an operation costs: bytecodes of the store's own code, comparisons of heap entries, looks into the dictionary of
# jobs. Counted, not timed, so that it says the same on every machine.


class Meter:
    def __init__(self) -> None:
        self.opcodes = 0
        self.comparisons = 0
        self.looks = 0

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "call":
            if "stores" not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            self.opcodes += 1
        return self.trace


class Instant(int):
    """A time that counts how often it is compared."""

    meter = Meter()

    def __lt__(self, other: int) -> bool:
        self.meter.comparisons += 1
        return int(self) < int(other)

    def __eq__(self, other: object) -> bool:
        return int(self) == other

    __hash__ = int.__hash__


class CountedJobs(dict[str, Job]):
    meter: Meter

    def get(self, key: str, default: Any = None) -> Any:
        self.meter.looks += 1
        return super().get(key, default)

    def __getitem__(self, key: str) -> Job:
        self.meter.looks += 1
        return super().__getitem__(key)

    def values(self) -> Any:
        self.meter.looks += len(self)
        return super().values()


class CountedClock(FakeClock):
    def now(self) -> int:
        return Instant(super().now())


async def _cycle(world: World) -> None:
    """Everything that happens to a job, once; without `ahead`, which counts, up to a bound."""
    store = world.store
    world.clock.tick()
    (job,) = await world.fill(1, request_id=f"r{world.last_id}", attempt_timeout=HOUR)
    assert await store.insert([world.job(request_id=job.spec.request_id)]) == [job]
    (taken,) = await world.claim(1)
    await store.report([Update(taken.id, taken.fence, None, (LogLine(Severity.INFO, "x"),))])
    await store.outputs([taken.id])
    (done,) = await world.finish([taken])
    await store.get([done.id])
    await store.find(Filter("default"), None, 10)
    await store.find(Filter("default"), job.id, 10)
    await store.due(10)
    await store.counts()
    await store.changes(await store.head() - 3, 10)
    (extra,) = await world.fill(1)
    assert await store.delete([extra]) == [True]


async def _cost(stored: int, cycles: int = 30) -> Meter:
    world = World()
    world.clock = CountedClock()
    world.store = MemoryStore(world.clock)
    meter = Meter()
    jobs = CountedJobs()
    jobs.meter = Instant.meter = meter
    world.store._jobs, world.store._ready = jobs, ReadyIndex(jobs)
    await world.open()
    await world.fill(stored // 4)
    await world.fill(stored // 4, delay=HOUR)
    await world.finish(await world.claim(stored // 4))
    await world.fill(stored // 2)
    await world.claim(stored // 4)
    await _cycle(world)
    meter.comparisons = meter.looks = 0
    before = sys.gettrace()
    sys.settrace(meter.trace)
    try:
        for _ in range(cycles):
            await _cycle(world)
    finally:
        sys.settrace(before)
    return meter


async def test_the_cost_of_a_job_does_not_grow_with_the_number_of_jobs() -> None:
    small, large = await _cost(1_000), await _cost(16_000)
    assert small.opcodes > 30 * 500
    assert large.looks <= small.looks * 1.1
    assert large.opcodes <= small.opcodes * 1.1
    # A heap of 16 times as many needs four more steps down.
    assert large.comparisons <= small.comparisons * math.log2(16_000) / math.log2(1_000) * 1.5


async def test_the_meter_sees_a_loop_over_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(self: MemoryStore, ids: list[str]) -> list[Job]:
        return [job for job in self._jobs.values() if job.spec.id in ids]

    monkeypatch.setattr(MemoryStore, "get", slow)
    small, large = await _cost(1_000, cycles=3), await _cost(4_000, cycles=3)
    assert large.looks > small.looks * 2


def _records() -> Iterator[object]:
    world = World()
    job = world.job(labels={"a": "1"}, request_id="r", attempt_timeout=5)
    yield job
    yield job.spec
    yield job.spec.payload
    yield job.spec.retry
    taken = lifecycle.started(job, 1, session="s", worker="w", fence=1)
    yield taken
    yield from taken.history
    yield lifecycle.ended(taken, 2, DONE, RNG)
    yield LogLine(Severity.INFO, "x")
    yield Update("id", 1)


def test_records_are_not_tracked_by_the_garbage_collector() -> None:
    for record in _records():
        assert not gc.is_tracked(record), type(record)


async def test_stored_jobs_add_nothing_that_the_collector_walks() -> None:
    """After a collection, which untracks tuples and dictionaries of plain values, a job costs its passes nothing."""
    world = World()
    await world.fill(100, labels={"a": "1"}, request_id="")
    gc.collect()
    before = len(gc.get_objects())
    await world.fill(2_000, labels={"a": "1"})
    gc.collect()
    assert len(gc.get_objects()) - before < 200


# Nothing grows for ever.


async def _live_and_go(world: World, count: int) -> None:
    """Jobs that are submitted, executed, finished and deleted by their retention, and leave nothing."""
    for _ in range(count // 100):
        await world.fill(100, retention=0, attempt_timeout=HOUR)
        await world.finish(await world.claim(100))
        jobs, _next = await world.store.due(1_000)
        assert all(await world.store.delete(jobs))
        world.clock.tick(1_000)


def _weight(store: MemoryStore) -> dict[str, int]:
    found = {}
    for name, value in vars(store).items():
        if name != "_feed" and hasattr(value, "__len__") and not isinstance(value, str):
            found[name] = len(value)
    found["order"] = sum(len(order) for order in store._order.values())
    found["heaps"] = sum(len(line.heap) for lines in store._ready._lines.values() for line in lines.values())
    return found


async def test_jobs_that_are_gone_leave_nothing() -> None:
    world = World(MemoryLimits(feed_length=100))
    await world.open()
    await world.fill(1, delay=10**6 * HOUR)
    await _live_and_go(world, 2_000)
    early = _weight(world.store)
    await _live_and_go(world, 8_000)
    late = _weight(world.store)
    assert {name: size for name, size in late.items() if size > early[name] + 1_100} == {}
    assert late["_jobs"] == 1
    assert len(world.store._feed) == 100
    assert (await world.store.counts()).size < 2_000


async def test_a_job_that_runs_again_and_again_leaves_nothing() -> None:
    world = World(MemoryLimits(feed_length=100))
    await world.open()
    (job,) = await world.fill(1)
    for _ in range(5_000):
        (taken,) = await world.claim(1)
        (done,) = await world.finish([taken])
        world.clock.tick()
        again = lifecycle.new_run(done, world.clock.now())
        assert await world.store.put([again], [done.version]) == [True]
    assert max(_weight(world.store).values()) < 1_100
    assert await world.store.get([job.id]) == [again]


async def test_namespaces_that_are_empty_leave_nothing() -> None:
    world = World(MemoryLimits(feed_length=10))
    for n in range(100):
        jobs = await world.fill(3, namespace=f"n{n}")
        await world.store.delete(jobs)
    assert world.store._order == {}
    assert world.store._dead == {}


async def test_sessions_that_are_closed_leave_nothing() -> None:
    world = World()
    for n in range(100):
        await world.store.open_session(f"s{n}", HOUR)
        await world.fill(1)
        (taken,) = await world.store.claim(f"s{n}", "w", [Ask("work", 1)], 1)
        if n % 2:
            await world.finish([taken])
            await world.store.close_session(f"s{n}")
        else:
            await world.store.close_session(f"s{n}")
            await world.finish([taken])
    assert world.store._sessions == {}
    assert world.store._held == {}


async def test_a_search_stops_at_its_budget_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_FIND_BUDGET", 10)
    world = World()
    jobs = await world.fill(35)
    where = Filter("default", states=frozenset({State.FAILED}))
    page = await world.store.find(where, None, 5)
    assert (page.jobs, page.after) == ((), jobs[-10].id)
    for at in (15, 5):
        page = await world.store.find(where, page.after, 5)
        assert (page.jobs, page.after) == ((), jobs[at].id)
    page = await world.store.find(where, page.after, 5)
    assert (page.jobs, page.after) == ((), None)


@pytest.mark.parametrize("operation", ["insert", "put"])
async def test_size_is_the_sum_of_what_is_there(operation: str) -> None:
    world = World()
    await world.open()
    start = (await world.store.counts()).size
    assert start == 0
    jobs = await world.fill(3, labels={"a": "1"})
    size = (await world.store.counts()).size
    assert size >= 3 * (100 + len(b"{}"))
    if operation == "put":
        done = await world.finish(await world.claim(3))
        assert (await world.store.counts()).size == size + 3 * len(b"1")
        jobs = done
    assert all(await world.store.delete(jobs))
    assert (await world.store.counts()).size == 0


async def test_no_operation_waits() -> None:
    """An operation without an await inside is atomic among the tasks of its loop."""
    world = World()
    store = world.store
    job = world.job()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.insert([job]),
        lambda: store.find(Filter("default"), None, 5),
        lambda: store.put([job], [1]),
        lambda: store.claim("s", "w", [Ask("work", 1)], 1),
        lambda: store.due(5),
        lambda: store.changes(0, 5),
        lambda: store.report([Update(job.id, 0)]),
        lambda: store.delete([job]),
    ]
    for call in calls:
        steps = call().__await__()
        with pytest.raises(StopIteration):
            next(steps)


async def test_logs_count_against_the_size_and_are_bounded_in_bytes() -> None:
    world = World(MemoryLimits(max_log_bytes=10_000))
    store = world.store
    await store.open_session("s", HOUR)
    await store.insert([world.job()])
    (job,) = await store.claim("s", "w", [Ask("work", 1)], 1)
    before = (await store.counts()).size
    lines = tuple(LogLine(Severity.INFO, "x" * 1_000) for _ in range(50))
    assert await store.report([Update(job.id, job.fence, None, lines)]) == [True]
    (output,) = await store.outputs([job.id])
    assert (output.log_start, output.log_end) == (42, 50)
    assert (await store.counts()).size - before == 8 * 1_200
