"""The feed of the PostgreSQL store: transactions that stall, order, positions that are too old, several servers."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from atlas_grpc.errors import ResumeTokenExpired
from atlas_grpc.stores.postgres import PostgresLimits, columns
from tests.support import debian, postgres
from tests.support.postgres_bench import Tools, bench_on, listener_of
from tests.support.vitals import vital
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.postgres_bench import Bench

pytestmark = pytest.mark.timeout(debian.TIMEOUT)


async def test_a_stalled_transaction_holds_back_the_feed_and_nothing_else(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    start = await store.head()
    other = await bench.raw()
    stalled = other.transaction()
    await stalled.start()
    await other.fetchval("select pg_current_xact_id()")
    (job,) = await kit.new(1)
    await kit.session()
    (taken,) = await kit.claim(1)
    done = await kit.finish(taken)
    heard = listener_of(store)
    assert [written.version for written in heard.written] == [1, 2, 3]
    assert await store.get([job.id]) == [done]
    assert await store.changes(start, 10) == ([], start)
    assert await store.head() == start
    assert vital(store, "atlas_postgresql_feed_lag_seconds") > 0
    assert vital(store, "atlas_postgresql_oldest_transaction_age") >= 3
    news = len(heard.news)
    await stalled.rollback()
    await until(lambda: () in heard.news[news:])
    changes, cursor = await store.changes(start, 10)
    assert [change.job for change in changes] == [done]
    assert cursor == await store.head()
    assert vital(store, "atlas_postgresql_feed_lag_seconds") == 0


async def test_what_another_server_wrote_is_told_when_the_feed_has_grown(bench: Bench) -> None:
    writer, reader = await bench.store(), await bench.store()
    start = await reader.head()
    other = await bench.raw()
    heard = listener_of(reader)
    async with other.transaction():
        await other.fetchval("select pg_current_xact_id()")
        (job,) = await Tools(writer).new(1)
        await until(lambda: [job.id] in heard.news)
        assert await reader.changes(start, 10) == ([], start)
        news = len(heard.news)
    await until(lambda: () in heard.news[news:])
    changes, _ = await reader.changes(start, 10)
    assert [change.job for change in changes] == [job]


async def test_transactions_that_end_in_another_order_than_they_began(bench: Bench) -> None:
    """The later version of a job may be of the older transaction: a reader is told that version, once."""
    store = await bench.store()
    kit = Tools(store)
    (job,) = await kit.new(1)
    start = await store.head()
    other = await bench.raw()
    async with other.transaction():
        old = int(await other.fetchval("select pg_current_xact_id()::text"))
        second = await kit.step(job)
        assert store._feed.written > old
        third = replace(second, version=3, cancel_reason="the latest")
        await other.fetch(store._database.text("put"), *columns.of_moved([third], [2], [0]))
        assert await store.changes(start, 10) == ([], start)
    changes, cursor = await store.changes(start, 10)
    assert [change.job for change in changes] == [third]
    assert cursor == old
    assert await store.changes(cursor, 10) == ([], cursor)


async def test_a_transaction_is_told_whole_however_small_the_limit(bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    start = await store.head()
    first, second = await kit.new(20), await kit.new(20)
    changes, cursor = await store.changes(start, 1)
    assert [change.job for change in changes] == first
    changes, _ = await store.changes(cursor, 1)
    assert [change.job for change in changes] == second


async def test_a_position_before_forgotten_deletions_is_refused(bench: Bench) -> None:
    store = await bench.store(limits=PostgresLimits(tombstones=5))
    kit = Tools(store)
    start = await store.head()
    jobs = await kit.new(12)
    for job in jobs[:11]:
        await store.delete([job])
    middle = await store.head()
    await store.delete([jobs[11]])
    assert len((await store.changes(start, 100))[0]) == 12
    while await store._feed.trim_some():
        pass
    raw = await bench.raw()
    assert await raw.fetchval(f'select count(*) from "{bench.schema}".tombstones') == 5
    with pytest.raises(ResumeTokenExpired):
        await store.changes(start, 100)
    changes, _ = await store.changes(middle, 100)
    assert [(change.spec.id, change.job) for change in changes] == [(jobs[11].id, None)]


async def test_output_that_came_in_late_goes_with_the_deletion(bench: Bench) -> None:
    store = await bench.store(limits=PostgresLimits(tombstones=0))
    (job,) = await Tools(store).new(1)
    await store.delete([job])
    raw = await bench.raw()
    await raw.execute(f'insert into "{bench.schema}".job_outputs (id, progress) values ($1, 1)', job.id)
    await raw.execute(f'insert into "{bench.schema}".job_logs values ($1, 0, 0, 0, 1, 1, $2)', job.id, "late")
    while await store._feed.trim_some():
        pass
    for table in ("job_outputs", "job_logs", "tombstones"):
        assert await raw.fetchval(f'select count(*) from "{bench.schema}".{table}') == 0


async def test_a_position_is_good_on_every_server(bench: Bench) -> None:
    one, two = await bench.store(), await bench.store()
    cursor = await one.head()
    assert one.epoch == two.epoch
    (job,) = await Tools(one).new(1)
    assert [change.job for change in (await two.changes(cursor, 10))[0]] == [job]
    cursor = await two.head()
    moved = await Tools(two).step(job)
    assert [change.job for change in (await one.changes(cursor, 10))[0]] == [moved]


async def test_an_idle_feed_stands_still_whatever_others_do(bench: Bench) -> None:
    store = await bench.store()
    await Tools(store).new(1)
    head = await store.head()
    other = await bench.raw()
    for _ in range(3):
        await other.fetchval("select pg_current_xact_id()")
    assert await store.head() == head


def _copy(source: str, schema: str, target: str) -> None:
    folder = postgres.binaries()
    dump = [folder / "pg_dump", "-n", schema, "-d", source]
    restore = [folder / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]
    text = subprocess.run(dump, capture_output=True, timeout=60, check=True).stdout
    subprocess.run(restore, input=text, capture_output=True, timeout=60, check=True)


async def test_a_restored_copy_is_another_line(server: postgres.PostgresServer, bench: Bench) -> None:
    store = await bench.store()
    kit = Tools(store)
    jobs = await kit.new(5, request_id="")
    await kit.session()
    taken = await kit.claim(2)
    admin = await bench.raw()
    copy = f"copy_{bench.schema}"
    await admin.execute(f"create database {copy}")
    await asyncio.to_thread(_copy, bench.url, bench.schema, server.url(copy))
    async with bench_on(server.url(copy)) as there:
        there.schema = bench.schema
        restored = await there.store()
        assert restored.epoch != store.epoch
        assert {job.id for job in (await restored.held("s1", 10))} == {job.id for job in taken}
        again = await Tools(restored).claim(10)
        assert {job.id for job in again} == {job.id for job in jobs} - {job.id for job in taken}
        assert min(job.fence for job in again) > max(job.fence for job in taken)
        cursor = await restored.head()
        (new,) = await Tools(restored).new(1)
        assert [change.job for change in (await restored.changes(cursor, 10))[0]] == [new]
    await admin.execute(f"drop database {copy} with (force)")


async def test_a_reader_far_behind_reads_no_more_than_there_is(bench: Bench) -> None:
    store = await bench.store()
    with pytest.raises(ResumeTokenExpired):
        await store.changes(2**62, 10)
    with pytest.raises(ResumeTokenExpired):
        await store.changes(-1, 10)
    assert await store.changes(0, 10) == ([], 0)
