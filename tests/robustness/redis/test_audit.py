"""The auditor finds and repairs each kind of damage, and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc.model import LogLine, Progress, Severity, State, Update
from atlas_grpc.stores.base import Filter
from tests.robustness.redis.conftest import HOUR, Hand
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from atlas_grpc.model import Job
    from tests.support.redis import RedisServer


class Zoo:
    """Jobs in every state, and their keys."""

    def __init__(self, hand: Hand, client: redis.Redis) -> None:
        self.hand = hand
        self.client = client
        self.base = f"{{{hand.store._link.target.options.prefix}}}:"
        self.ready: list[Job] = []
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.done: list[Job] = []

    def key(self, name: str) -> str:
        return self.base + name

    async def fill(self) -> None:
        hand = self.hand
        await hand.store.open_session("s", HOUR, b"info")
        await hand.store.put_documents("kind", {"a": b"1"})
        await hand.new(10, request_id="", attempt_timeout=HOUR)
        claimed = await hand.claim(10)
        self.done = await hand.finish(claimed[:5])
        self.running = claimed[5:]
        await hand.store.report([Update(self.running[0].id, self.running[0].fence, Progress(1.0), (_line(),))])
        self.ready = [*await hand.new(3), *await hand.new(3, priority=5, type="other")]
        (named,) = await hand.new(1, request_id="named")
        self.ready.append(named)
        self.waiting = await hand.new(2, delay=HOUR)

    def picture(self) -> dict[str, Any]:
        """All that is stored, but for what an audit may set anew."""
        found: dict[str, Any] = {}
        for key in self.client.scan_iter(f"{self.base}*"):
            name = key.decode().removeprefix(self.base)
            kind = self.client.type(key)
            if kind == b"zset":
                found[name] = sorted(self.client.zrange(key, 0, -1, withscores=True))
            elif kind == b"set":
                found[name] = sorted(self.client.smembers(key))
            elif kind == b"hash":
                found[name] = self.client.hgetall(key)
            elif kind == b"string":
                found[name] = self.client.get(key)
        return found


def _line() -> LogLine:
    return LogLine(Severity.INFO, "x")


@pytest.fixture
def client(shared_valkey: RedisServer) -> Iterator[redis.Redis]:
    with shared_valkey.client() as client:
        yield client


@pytest.fixture
async def zoo(hand: Hand, client: redis.Redis) -> Zoo:
    zoo = Zoo(hand, client)
    await zoo.fill()
    return zoo


LINE = "ready:0:t:work"
QUEUE_LINE = "ready:0:q:4:work:main"

LOST: dict[str, tuple[str, Callable[[Zoo], object]]] = {
    "listing entry": ("listing", lambda z: z.client.zrem(z.key("list:default"), z.ready[0].id)),
    "whole listing": ("listing", lambda z: z.client.delete(z.key("list:default"))),
    "line of the type": ("ready", lambda z: z.client.zrem(z.key(LINE), z.ready[1].id)),
    "line of the queue": ("ready", lambda z: z.client.delete(z.key(QUEUE_LINE))),
    "place in line": ("ready", lambda z: z.client.zincrby(z.key(LINE), 5, z.ready[1].id)),
    "priority": ("place", lambda z: z.client.delete(z.key("prios:t:other"))),
    "places": ("place", lambda z: z.client.delete(z.key("places"))),
    "timer": ("due", lambda z: z.client.zrem(z.key("due"), z.waiting[0].id)),
    "moved timer": ("due", lambda z: z.client.zincrby(z.key("due"), -7, z.done[0].id)),
    "request id": ("name", lambda z: z.client.hdel(z.key("names:default"), "named")),
    "holder": ("held", lambda z: z.client.srem(z.key("held:s"), z.running[0].id)),
    "token": ("fence", lambda z: z.client.set(z.key("fence"), z.running[-1].fence - 3)),
    "counts": ("count", lambda z: z.client.hincrby(z.key("counts"), "1", 5)),
    "no counts": ("count", lambda z: z.client.delete(z.key("counts"))),
    "head": ("count", lambda z: z.client.decrby(z.key("head"), 5)),
}
"""What goes missing: the kind of fault that is told, and how it is made. The audit puts it back as it was."""

LEFT: dict[str, tuple[str, Callable[[Zoo], object]]] = {
    "listing": ("entry", lambda z: z.client.zadd(z.key("list:default"), {"ghost": 0})),
    "line": ("entry", lambda z: z.client.zadd(z.key(LINE), {"ghost": 1})),
    "line of another": ("entry", lambda z: z.client.zadd(z.key(LINE), {z.ready[3].id: 1})),
    "line of its own": ("entry", lambda z: z.client.zadd(z.key("ready:9:t:none"), {"ghost": 1})),
    "running in line": ("ready", lambda z: z.client.zadd(z.key(LINE), {z.running[0].id: 1})),
    "priority": ("entry", lambda z: z.client.zadd(z.key("prios:t:work"), {"7": 7})),
    "place": ("entry", lambda z: z.client.sadd(z.key("places"), "q:4:none:main")),
    "timer": ("entry", lambda z: z.client.zadd(z.key("due"), {"ghost": 1})),
    "timer of a job without": ("due", lambda z: z.client.zadd(z.key("due"), {z.ready[0].id: 1})),
    "finished": ("entry", lambda z: z.client.zadd(z.key("finished"), {"ghost": 1})),
    "finished one that runs": ("finished", lambda z: z.client.zadd(z.key("finished"), {z.running[0].id: 1})),
    "request id": ("entry", lambda z: z.client.hset(z.key("names:default"), "ghost", "ghost")),
    "holder": ("entry", lambda z: z.client.sadd(z.key("held:s"), "ghost")),
    "holder of another": ("entry", lambda z: z.client.sadd(z.key("held:z"), z.running[0].id)),
    "session": ("entry", lambda z: z.client.zadd(z.key("sessions"), {"closed": 0})),
    "info": ("entry", lambda z: z.client.set(z.key("info:ghost"), "x")),
    "progress": ("entry", lambda z: z.client.hset(z.key("out:ghost"), "progress", "x")),
    "log": ("entry", lambda z: z.client.rpush(z.key("log:ghost"), "x")),
}
"""What is left over, and goes."""


async def test_nothing_is_found_where_nothing_is_wrong(zoo: Zoo) -> None:
    before = zoo.picture()
    found = await zoo.hand.store.audit()
    assert not found.repaired
    assert found.counted
    assert found.jobs >= 19
    assert zoo.picture() == before


@pytest.mark.parametrize("what", LOST)
async def test_what_is_missing_is_put_back(what: str, zoo: Zoo) -> None:
    kind, damage = LOST[what]
    before = zoo.picture()
    damage(zoo)
    assert zoo.picture() != before, "the damage is one"
    found = await zoo.hand.store.audit()
    assert found.repaired[kind] > 0
    assert zoo.picture() == before
    await zoo.hand.must_be_sound()


@pytest.mark.parametrize("what", LEFT)
async def test_what_is_left_over_is_dropped(what: str, zoo: Zoo) -> None:
    kind, damage = LEFT[what]
    before = zoo.picture()
    damage(zoo)
    found = await zoo.hand.store.audit()
    assert found.repaired[kind] > 0
    assert zoo.picture() == before
    await zoo.hand.must_be_sound()


async def test_a_finished_job_is_known_as_such_again(zoo: Zoo) -> None:
    zoo.client.delete(zoo.key("finished"))
    found = await zoo.hand.store.audit()
    assert found.repaired == {"finished": 5}
    assert {name.decode() for name in zoo.client.zrange(zoo.key("finished"), 0, -1)} == {job.id for job in zoo.done}
    await zoo.hand.must_be_sound()


async def test_a_job_whose_session_is_gone_is_rescued(zoo: Zoo) -> None:
    zoo.client.delete(zoo.key("sessions"))
    assert await zoo.hand.store.expired(10) == []
    found = await zoo.hand.store.audit()
    assert found.repaired == {"session": 1}
    assert await zoo.hand.store.expired(10) == ["s"]
    assert len(await zoo.hand.store.held("s", 10)) == 5


@pytest.mark.parametrize("half", ["job", "spec"])
async def test_half_a_job_is_removed(half: str, zoo: Zoo) -> None:
    store = zoo.hand.store
    broken = [zoo.ready[0], zoo.waiting[0], zoo.running[0], zoo.done[0], zoo.ready[-1]]
    for job in broken:
        zoo.client.delete(zoo.key(f"{half}:{job.id}"))
    found = await store.audit()
    missing = "spec" if half == "job" else "job"
    assert found.repaired[f"{missing} without {half}"] == 5
    assert await store.get([job.id for job in broken]) == [None] * 5
    listed = [job.id for job in (await store.find(Filter("default"), None, 100)).jobs]
    assert len(listed) == 14
    assert len(await zoo.hand.claim(100)) == 2
    states = (await store.counts()).states
    assert (states[State.PENDING], states[State.RUNNING], states[State.SUCCESS]) == (4, 6, 4)
    await zoo.hand.new(1, request_id="named")
    await zoo.hand.must_be_sound()


async def test_a_closed_session_leaves_nothing(hand: Hand) -> None:
    await hand.store.open_session("s", HOUR, b"info")
    await hand.store.close_session("s")
    await hand.must_be_sound()


async def test_two_jobs_of_one_name_are_told_and_left(zoo: Zoo) -> None:
    zoo.client.hdel(zoo.key("names:default"), "named")
    (second,) = await zoo.hand.new(1, request_id="named")
    found = await zoo.hand.store.audit()
    assert found.repaired == {"name taken": 1}
    assert await zoo.hand.store.get([second.id, zoo.ready[-1].id]) == [second, zoo.ready[-1]]


async def test_claims_and_sweeps_step_over_leftovers(zoo: Zoo) -> None:
    """Without waiting for an audit."""
    zoo.client.zadd(zoo.key("due"), {"ghost": 1, zoo.ready[0].id: 2})
    jobs, following = await zoo.hand.store.due(10)
    assert jobs == []
    assert following == zoo.running[0].due or following is not None
    zoo.client.zadd(zoo.key(LINE), {f"ghost{n}": n for n in range(200)})
    assert len(await zoo.hand.claim(100)) == 4
    zoo.client.decrby(zoo.key("head"), 5)
    await zoo.hand.new(1)
    zoo.client.delete(zoo.key(f"job:{zoo.ready[-1].id}"))
    (again,) = await zoo.hand.new(1, request_id="named")
    assert again.id != zoo.ready[-1].id


async def test_an_audit_disturbs_nobody(hand: Hand) -> None:
    """While writers work it finds nothing wrong, and they lose nothing."""
    await hand.store.open_session("s", HOUR)

    async def work() -> None:
        for _ in range(25):
            await hand.new(20)
            ends = await hand.finish(await hand.claim(15))
            await hand.store.delete(ends[:5])

    writers = [asyncio.create_task(work()) for _ in range(3)]
    audits = 0
    while not all(writer.done() for writer in writers):
        found = await hand.store.audit()
        assert not found.repaired
        audits += 1
    await asyncio.gather(*writers)
    assert audits > 1
    await hand.must_be_sound()


async def test_the_background_pass_runs_by_itself(shared_valkey: RedisServer, hand: Hand) -> None:
    from tests.robustness.redis.conftest import opened

    await hand.new(5)
    prefix = hand.store._link.target.options.prefix
    async with opened(shared_valkey.url(prefix)) as other:
        await until(lambda: other.store._auditor.passes >= 1)
        last = other.store._auditor.last
        assert last is not None
        assert last.jobs >= 5
        assert not last.repaired
