"""The PostgreSQL store when connections are cut, the server is killed, or does not answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import lifecycle
from atlas_grpc.errors import Unavailable
from atlas_grpc.model import Ask, State
from atlas_grpc.stores.base import Filter
from tests.support import debian, postgres
from tests.support.cutting import cutting
from tests.support.postgres_bench import HOUR, Tools, bench_on, finished, listener_of
from tests.support.vitals import vital
from tests.support.waiting import until

if TYPE_CHECKING:
    from atlas_grpc.model import Job
    from atlas_grpc.stores.postgres import PostgresStore
    from tests.support.cutting import Moment
    from tests.support.postgres_bench import Bench

pytestmark = pytest.mark.timeout(debian.TIMEOUT)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_call_that_is_cut_is_unavailable_and_its_repeat_creates_nothing_twice(
    server: postgres.PostgresServer, bench: Bench, moment: Moment
) -> None:
    proxy = await bench.enter(cutting(server.port))
    store = await bench.store(url=server.url(port=proxy.port))
    kit = Tools(store)
    await kit.new(1)
    first, second = kit.job(request_id="the-name"), kit.job(request_id="the-name")
    proxy.cut(b"the-name", moment)
    with pytest.raises(Unavailable) as caught:
        await store.insert([first])
    assert proxy.cuts == 1
    assert caught.value.retry_after
    # The server may still be about to do what it was asked.
    if moment == "after":
        beside = await bench.store()

        async def stored() -> bool:
            return await beside.get([first.id]) == [first]

        await kit.eventually(stored, "the request was carried out")
    answer = await store.insert([second])
    assert answer == [first if moment == "after" else second]
    page = await store.find(Filter("default"), None, 10)
    assert sum(job.spec.request_id == "the-name" for job in page.jobs) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_finish_that_is_cut_is_stored_once_or_not_at_all(
    server: postgres.PostgresServer, bench: Bench, moment: Moment
) -> None:
    proxy = await bench.enter(cutting(server.port))
    store = await bench.store(url=server.url(port=proxy.port))
    kit = Tools(store)
    await kit.new(1)
    await kit.session()
    (taken,) = await kit.claim(1)
    done = finished(taken, store)
    proxy.cut(b'{"done": true}', moment)
    with pytest.raises(Unavailable):
        await store.put([done], [taken.version])

    async def stored() -> bool:
        return (await store.get([taken.id])) == [done if moment == "after" else taken]

    await kit.eventually(stored, "the outcome")
    assert await store.put([done], [taken.version]) == [moment == "before"]
    assert await store.get([taken.id]) == [done]


class _Load:
    """Submits, claims and finishes until it is told to stop; notes what was acknowledged."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.kit = Tools(store)
        self.stopping = False
        self.inserted: dict[str, Job] = {}
        self.finished: dict[str, Job] = {}
        self.documented = 0
        self.failures: Counter[str] = Counter()
        self.succeeded_at = 0.0

    async def insert(self, name: str) -> None:
        number = 0
        while not self.stopping:
            number += 1
            jobs = [self.kit.job(request_id=f"{name}-{number}-{n}") for n in range(5)]
            while not self.stopping:
                try:
                    stored = await self.store.insert(jobs)
                except Unavailable as error:
                    await self._note(error)
                    continue
                self.inserted.update((job.id, job) for job in stored if job is not None)
                self.succeeded_at = time.monotonic()
                break

    async def work(self, session: str) -> None:
        opened = False
        while not self.stopping:
            try:
                if not opened:
                    await self.store.open_session(session, HOUR)
                    opened = True
                jobs = await self.store.claim(session, "w", [Ask("work", 5)], 5)
                ends = [finished(job, self.store) for job in jobs]
                for end, ok in zip(ends, await self.store.put(ends, [job.version for job in jobs]), strict=True):
                    if ok:
                        self.finished[end.id] = end
            except Unavailable as error:
                await self._note(error)
            await asyncio.sleep(0)

    async def document(self) -> None:
        for number in range(1, 1_000_000):
            if self.stopping:
                return
            try:
                await self.store.put_documents("kind", dict.fromkeys(("one", "other"), b"%d" % number))
                self.documented = number
            except Unavailable as error:
                await self._note(error)
            await asyncio.sleep(0)

    async def _note(self, error: Unavailable) -> None:
        self.failures[error.message] += 1
        # As a client does that is told when to come back, but more impatient.
        await asyncio.sleep(min(error.retry_after or 0.05, 0.05))


async def test_a_server_that_is_killed_under_load_loses_nothing_acknowledged() -> None:
    with postgres.running(fsync=True) as server:
        async with bench_on(server.url()) as bench:
            store = await bench.store()
            load = _Load(store)
            tasks = [asyncio.create_task(load.insert(f"i{n}")) for n in range(4)]
            tasks += [asyncio.create_task(load.work(f"s{n}")) for n in range(4)]
            tasks.append(asyncio.create_task(load.document()))
            epoch = store.epoch
            for _ in range(2):
                goal = len(load.finished) + 200
                await until(lambda goal=goal: len(load.finished) >= goal)
                await asyncio.to_thread(server.kill)
                failures = load.failures.total()
                await until(lambda failures=failures: load.failures.total() > failures + 10)
                await asyncio.to_thread(server.start)
                back = time.monotonic()
                await until(lambda back=back: load.succeeded_at > back)
                assert load.succeeded_at - back <= 1.0
            goal = len(load.finished) + 200
            await until(lambda: len(load.finished) >= goal)
            load.stopping = True
            await asyncio.gather(*tasks)
            assert store.epoch == epoch
            await _check(load, bench)


async def _check(load: _Load, bench: Bench) -> None:
    documents = await load.store.documents("kind")
    assert documents["one"] == documents["other"], "a put of documents is there in part"
    assert int(documents["one"]) >= load.documented > 0, "an acknowledged document is lost"
    ids = list(load.inserted)
    for job_id, job in zip(ids, await load.store.get(ids), strict=True):
        assert job is not None, "an acknowledged job is lost"
        if job_id in load.finished:
            assert job == load.finished[job_id], "an acknowledged end is lost"
    raw = await bench.raw()
    names = await raw.fetch(
        f'select request_id from "{bench.schema}".job_specs group by namespace, request_id having count(*) > 1'
    )
    assert names == []
    fences = await raw.fetch(f'select fence from "{bench.schema}".job_states where fence > 0')
    assert len({row["fence"] for row in fences}) == len(fences)
    # The whole life of the store, by the feed, agrees with what is stored.
    cursor, seen = 0, {}
    while True:
        changes, after = await load.store.changes(cursor, 1_000)
        if after == cursor:
            break
        cursor = after
        seen.update((change.spec.id, change.job) for change in changes)
    assert set(ids) <= seen.keys()


async def test_listening_is_taken_up_again_and_everything_doubted(bench: Bench) -> None:
    store, other = await bench.store(), await bench.store()
    await until(lambda: vital(store, "atlas_postgresql_listening") == 1)
    raw = await bench.raw()
    heard = listener_of(store)
    ready, news = heard.ready, len(heard.news)
    pid = store._notices._connection.get_server_pid()
    await raw.execute("select pg_terminate_backend($1)", pid)
    await until(lambda: None in heard.news[news:] and heard.ready > ready)
    await until(lambda: vital(store, "atlas_postgresql_listening") == 1)
    news = len(heard.news)
    (job,) = await Tools(other).new(1)
    await until(lambda: [job.id] in heard.news[news:])


async def test_without_notices_a_look_at_the_feed_tells(bench: Bench) -> None:
    store, other = await bench.store("&listen=off"), await bench.store()
    heard = listener_of(store)
    # The first look finds what was there before.
    await Tools(other).new(1)
    await until(lambda: None in heard.news)
    ready, news = heard.ready, len(heard.news)
    await Tools(other).new(1)
    await until(lambda: None in heard.news[news:] and heard.ready > ready)


async def test_a_notice_that_was_lost_before_one_that_came_is_made_good(bench: Bench) -> None:
    store, told, silent = await bench.store(), await bench.store(), await bench.store("&listen=off")
    for one in (store, told):
        await until(lambda one=one: vital(one, "atlas_postgresql_listening") == 1)
    heard = listener_of(store)
    heard.news.clear()
    await Tools(silent).new(1)  # as if its server had been killed then
    (job,) = await Tools(told).new(1)
    await until(lambda: [job.id] in heard.news)
    heard.news.clear()
    await until(lambda: None in heard.news)


async def test_many_changes_are_told_as_something(bench: Bench) -> None:
    store, other = await bench.store(), await bench.store()
    await until(lambda: vital(store, "atlas_postgresql_listening") == 1)
    heard = listener_of(store)
    await until(lambda: vital(other, "atlas_postgresql_listening") == 1)
    heard.news.clear()
    await Tools(other).new(500)
    await until(lambda: None in heard.news)


async def test_a_notice_of_a_stranger_is_harmless(bench: Bench) -> None:
    store = await bench.store()
    await until(lambda: vital(store, "atlas_postgresql_listening") == 1)
    raw = await bench.raw()
    heard = listener_of(store)
    heard.news.clear()
    for payload in ("", "{", "[]", '["a", "b"]', '["x", 1, true, ["1"], null, 7]'):
        await raw.execute("select pg_notify($1, $2)", f"atlas_{bench.schema}", payload)
    await until(lambda: None in heard.news)
    (job,) = await Tools(store).new(1)
    assert await store.get([job.id]) == [job]


async def test_a_call_has_a_limit_on_its_time(bench: Bench) -> None:
    store = await bench.store("&pool=2&timeout=0.3")
    (job,) = await Tools(store).new(1)
    raw = await bench.raw()
    async with raw.transaction():
        await raw.execute(f'lock table "{bench.schema}".job_states in access exclusive mode')
        began = time.monotonic()
        # More than there are connections: some wait for the server, others for them.
        answers = await asyncio.gather(*(store.get([job.id]) for _ in range(6)), return_exceptions=True)
        assert time.monotonic() - began < 5
        assert all(isinstance(answer, Unavailable) for answer in answers)
    assert await store.get([job.id]) == [job]
    assert vital(store, "atlas_postgresql_pool_connections", "used") == 0


async def test_a_caller_that_goes_away_leaves_the_write_whole(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    job = kit.job()
    raw = await bench.raw()
    async with raw.transaction():
        await raw.execute(f'lock table "{bench.schema}".job_specs in access exclusive mode')
        call = asyncio.create_task(store.insert([job]))
        await _someone_waits(raw)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    heard = listener_of(store)
    await until(lambda: heard.written == [job])
    assert await store.get([job.id]) == [job]


async def _someone_waits(raw: object, patience: float = 20) -> None:
    async with asyncio.timeout(patience):
        while not await raw.fetchval("select count(*) from pg_locks where not granted"):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.005)


async def test_closing_a_session_waits_for_its_claims(bench: Bench) -> None:
    """Else a job could run for a session that nobody looks after."""
    store = await bench.store()
    kit = Tools(store)
    (job,) = await kit.new(1)
    await kit.session()
    raw = await bench.raw()
    async with raw.transaction():
        claimed = await raw.fetch(store._database.text("claim_type"), "s1", "w", store.now(), "work", 1)
        assert len(claimed) == 1
        closing = asyncio.create_task(store.close_session("s1"))
        await _someone_waits(raw)
        assert not closing.done()
    await closing
    assert await store.expired(10) == ["s1"]
    assert [held.id for held in await store.held("s1", 10)] == [job.id]


async def test_a_claim_of_several_types_tells_that_it_left_some(bench: Bench) -> None:
    store, other = await bench.store(), await bench.store()
    await until(
        lambda: vital(other, "atlas_postgresql_listening") == 1 and vital(store, "atlas_postgresql_listening") == 1
    )
    kit = Tools(store)
    await kit.new(5, type="a")
    await kit.new(5, type="b")
    await kit.session()
    await until(lambda: listener_of(other).ready > 0)
    mine, theirs = listener_of(store).ready, listener_of(other).ready
    taken = await kit.claim(4, asks=[Ask("a", 4), Ask("b", 4)])
    assert len(taken) == 4
    assert listener_of(store).ready > mine
    await until(lambda: listener_of(other).ready > theirs)


async def test_another_server_is_told_of_which_kinds_jobs_became_ready(bench: Bench) -> None:
    store, other = await bench.store(), await bench.store()
    await until(lambda: vital(other, "atlas_postgresql_listening") == 1)
    heard, kit = listener_of(other), Tools(store)
    heard.kinds.clear()
    await store.insert([kit.job(type="a", queue="x"), kit.job(type="a", queue="x"), kit.job(type="b", delay=HOUR)])
    await until(lambda: [("a", "x")] in heard.kinds)
    heard.kinds.clear()
    await store.insert([kit.job(type=f"a-type-with-a-long-name-{number}") for number in range(100)])
    await until(lambda: None in heard.kinds)  # too many to name


async def test_a_claim_never_draws_its_token_before_it_has_the_row(bench: Bench) -> None:
    """Claims that overlap with releases of the same job: its tokens only grow."""
    store = await bench.store()
    kit = Tools(store)
    (job,) = await kit.new(1)
    fences: list[tuple[int, int]] = []

    async def play(name: str) -> None:
        await store.open_session(name, HOUR)
        while len(fences) < 300:
            for taken in await store.claim(name, "w", [Ask("work", 1)], 1):
                fences.append((taken.version, taken.fence))
                back = lifecycle.released(taken, store.now(), 0)
                assert await store.put([back], [taken.version]) == [True]

    await asyncio.gather(*(play(f"p{n}") for n in range(6)))
    assert (await kit.get(job)).state is State.PENDING
    ordered = [fence for _, fence in sorted(fences)]
    assert ordered == sorted(set(ordered))
