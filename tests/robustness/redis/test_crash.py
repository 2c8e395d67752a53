"""Servers that die: what was acknowledged is there again, and the store comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.errors import AtlasError, ResumeTokenExpired, Unavailable
from atlas_grpc.model import LogLine, Severity, State, Update
from tests.robustness.redis.conftest import HOUR, Hand, opened
from tests.support.proxy import proxied
from tests.support.waiting import until

if TYPE_CHECKING:
    from atlas_grpc.model import Job
    from tests.support.redis import RedisServer


class Load:
    """Writers that go on whatever happens, and what they were told."""

    def __init__(self, hand: Hand) -> None:
        self.hand = hand
        self.versions: dict[str, int] = {}
        self.refusals = 0
        self.fences: list[int] = []
        self.noted = 0
        self.success = asyncio.Event()
        self.stopped = False

    def _note(self, jobs: list[Job]) -> None:
        self.versions.update((job.id, job.version) for job in jobs)
        self.success.set()

    async def insert(self) -> None:
        while not self.stopped:
            jobs = [self.hand.job(request_id=f"r{len(self.versions)}-{n}-{time.monotonic_ns()}") for n in range(7)]
            try:
                self._note([job for job in await self.hand.store.insert(jobs) if job is not None])
            except Unavailable:
                self.refusals += 1
            await asyncio.sleep(0)

    async def work(self) -> None:
        while not self.stopped:
            try:
                claimed = await self.hand.claim(5)
                self.fences += [job.fence for job in claimed]
                ends = self.hand.ended(claimed)
                stored = await self.hand.store.put(ends, [job.version for job in claimed])
                self._note([job for job, kept in zip(ends, stored, strict=True) if kept])
            except Unavailable:
                self.refusals += 1
            await asyncio.sleep(0)

    async def document(self) -> None:
        for number in range(1, 1_000_000):
            if self.stopped:
                return
            try:
                await self.hand.store.put_documents("kind", dict.fromkeys(("one", "other"), b"%d" % number))
                self.noted = number
            except Unavailable:
                self.refusals += 1
            await asyncio.sleep(0)

    async def must_be_there(self) -> None:
        documents = await self.hand.store.documents("kind")
        assert len(set(documents.values())) <= 1
        assert int(documents.get("one", b"0")) >= self.noted
        ids = list(self.versions)
        for job_id, job in zip(ids, await self.hand.store.get(ids), strict=True):
            assert job is not None, job_id
            assert job.version >= self.versions[job_id]


async def test_a_killed_server_has_every_acknowledged_write(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0)) as hand:
        await hand.store.open_session("s", HOUR)
        (named,) = await hand.new(1, request_id="named")
        start, epoch = await hand.store.head(), hand.store.epoch
        load = Load(hand)
        works = (load.insert(), load.insert(), load.work(), load.work(), load.document())
        writers = [asyncio.create_task(work) for work in works]
        await until(lambda: len(load.versions) > 300)
        durable.kill()
        await until(lambda: load.refusals > 10)
        load.success.clear()
        durable.start()
        back = time.monotonic()
        await asyncio.wait_for(load.success.wait(), 20)
        assert time.monotonic() - back <= 1.0
        await until(lambda: len(load.versions) > 600)
        load.stopped = True
        await asyncio.gather(*writers)
        await load.must_be_there()
        assert load.noted
        assert len(set(load.fences)) == len(load.fences)
        assert hand.heard.doubts > 0
        assert hand.store.epoch == epoch
        _, cursor = await hand.store.changes(start, 10)
        assert cursor > start
        assert await hand.store.insert([hand.job(request_id="named")]) == await hand.store.get([named.id])
        await hand.must_be_sound()


async def test_a_store_opened_after_a_crash_goes_on(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0)) as hand:
        await hand.store.open_session("s", HOUR, b"info")
        await hand.store.put_documents("kind", {"a": b"1"})
        jobs = await hand.new(200)
        running = await hand.claim(50)
        done = await hand.finish(running[:20])
        durable.kill()
    durable.start()
    async with opened(durable.url(audit=0)) as hand:
        assert await hand.store.get([job.id for job in done]) == done
        assert await hand.store.sessions() == [("s", b"info")]
        assert await hand.store.documents("kind") == {"a": b"1"}
        assert sorted(job.id for job in await hand.store.held("s", 100)) == sorted(job.id for job in running[20:])
        assert {job.id for job in await hand.claim(1_000)} == {job.id for job in jobs} - {job.id for job in running}
        await hand.must_be_sound()


async def test_calls_fail_at_once_while_there_is_no_server(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0)) as hand:
        durable.kill()
        with pytest.raises(Unavailable):
            await hand.store.get(["x"])
        for call in (hand.store.head(), hand.store.counts(), hand.store.insert([hand.job()]), hand.store.expired(1)):
            async with asyncio.timeout(1):
                with pytest.raises(Unavailable) as caught:
                    await call
            assert caught.value.retry_after
        assert hand.store.now() > 0


async def test_opening_without_a_server_says_so(durable: RedisServer) -> None:
    durable.kill()
    with pytest.raises(Unavailable):
        async with opened(durable.url(timeout=0.3, connect_timeout=0.2)):
            pass


async def test_an_answer_that_is_lost_creates_nothing_twice(durable: RedisServer) -> None:
    async with proxied(durable.socket) as proxy, opened(f"redis://127.0.0.1:{proxy.port}?audit=0") as hand:
        job = hand.job(request_id="once")
        proxy.swallow_answer_to(job.id.encode())
        with pytest.raises(Unavailable) as caught:
            await hand.store.insert([job])
        assert proxy.swallowed.is_set()
        assert caught.value.retry_after
        await hand.works_again()
        (again,) = await hand.store.insert([hand.job(request_id="once")])
        assert again == job
        assert sum((await hand.store.counts()).states.values()) == 1
        await until(lambda: hand.heard.doubts > 0)


async def test_an_end_whose_answer_is_lost_is_stored_once(durable: RedisServer) -> None:
    async with proxied(durable.socket) as proxy, opened(f"redis://127.0.0.1:{proxy.port}?audit=0") as hand:
        await hand.store.open_session("s", HOUR)
        await hand.new(1)
        (job,) = await hand.claim(1)
        (end,) = hand.ended([job])
        proxy.swallow_answer_to(job.id.encode())
        with pytest.raises(Unavailable):
            await hand.store.put([end], [job.version])
        await hand.works_again()
        assert await hand.store.get([job.id]) == [end]
        assert await hand.store.put([end], [job.version]) == [False]


async def test_what_was_written_but_not_answered_counts_as_news(durable: RedisServer) -> None:
    """The listener is told of it although it was this very store that wrote."""
    async with proxied(durable.socket) as proxy, opened(f"redis://127.0.0.1:{proxy.port}?audit=0") as hand:
        job = hand.job()
        proxy.swallow_answer_to(job.id.encode())
        with pytest.raises(Unavailable):
            await hand.store.insert([job])
        assert hand.heard.written == []
        await until(lambda: hand.heard.doubts > 0 or job.id in hand.heard.news)
        await until(lambda: hand.heard.ready > 0)


async def test_a_server_that_stands_still_is_given_up(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0, timeout=1, connect_timeout=1)) as hand:
        assert durable.pid
        os.kill(durable.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(Unavailable):
                    await hand.store.get(["x"])
        finally:
            os.kill(durable.pid, signal.SIGCONT)
        await hand.works_again()
        (job,) = await hand.new(1)
        assert await hand.store.get([job.id]) == [job]


async def test_cancelled_calls_cost_no_connection(hand: Hand) -> None:
    jobs = await hand.new(300)
    for _ in range(20):
        calls = [asyncio.create_task(hand.store.get([job.id for job in jobs])) for _ in range(10)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await hand.store.get([jobs[7].id]) == [jobs[7]]
    assert hand.store._link.losses == 0


async def test_scripts_that_the_server_forgot_are_told_again(hand: Hand, shared_valkey: RedisServer) -> None:
    await hand.store.open_session("s", HOUR)
    with shared_valkey.client() as client:
        client.script_flush()
        jobs = await hand.new(300)
        client.script_flush()
        claimed = await hand.claim(300)
        client.script_flush()
        await hand.finish(claimed)
    assert {job.id for job in claimed} == {job.id for job in jobs}
    await hand.must_be_sound()


async def test_a_demoted_server_is_left_until_there_is_a_master(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0)) as hand:
        await hand.new(1)
        with durable.client() as client:
            client.replicaof("127.0.0.1", 1)
            with pytest.raises(Unavailable):
                await hand.new(1)
            await until(lambda: hand.store._link.losses > 0)
            client.replicaof("NO", "ONE")
        await hand.works_again()
        await hand.new(1)


async def test_writes_that_came_back_shorter_end_the_epoch(durable: RedisServer) -> None:
    """An append-only file that lost its end although it is synced always: the feed itself shows it."""
    async with opened(durable.url(audit=0)) as hand:
        await hand.new(5)
        middle, epoch = await hand.store.head(), hand.store.epoch
        durable.kill()
        (part,) = durable.folder.glob("appendonlydir/*.incr.aof")
        whole = part.read_bytes()
        durable.start()
        await hand.meets_another()
        assert hand.store.epoch == epoch
        lost = await hand.new(3)
        durable.kill()
        part.write_bytes(whole)
        durable.start()
        await hand.meets_another(3)
        assert hand.store.epoch != epoch
        assert await hand.store.get([job.id for job in lost]) == [None] * 3
        assert await hand.store.changes(middle, 10) == ([], middle)
        with pytest.raises(ResumeTokenExpired):
            await hand.store.changes(middle + 3, 10)
        await hand.new(4)
        await hand.must_be_sound()


@pytest.mark.parametrize("durable", ["everysec"], indirect=True)
async def test_a_restart_that_may_have_lost_something_ends_the_epoch(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0)) as hand:
        epoch = hand.store.epoch
        await hand.new(5)
        durable.kill()
        durable.start()
        await hand.meets_another()
        assert hand.store.epoch != epoch


async def test_output_survives_a_crash(durable: RedisServer) -> None:
    async with opened(durable.url(audit=0)) as hand:
        await hand.store.open_session("s", HOUR)
        await hand.new(1)
        (job,) = await hand.claim(1)
        lines = tuple(LogLine(Severity.INFO, f"{n}") for n in range(5))
        assert await hand.store.report([Update(job.id, job.fence, None, lines)]) == [True]
        durable.kill()
        durable.start()
        await hand.meets_another()
        assert [line.message for line in await hand.store.logs(job.id, 0, 10)] == ["0", "1", "2", "3", "4"]
        assert (await hand.store.get([job.id]))[0] == job
        assert job.state is State.RUNNING


async def test_no_answer_is_lost_in_a_storm_of_cuts(durable: RedisServer) -> None:
    async with proxied(durable.socket) as proxy, opened(f"redis://127.0.0.1:{proxy.port}?audit=0") as hand:
        await hand.store.open_session("s", HOUR)
        load = Load(hand)
        writers = [asyncio.create_task(work) for work in (load.insert(), load.insert(), load.work())]
        for _ in range(15):
            load.success.clear()
            await asyncio.wait_for(load.success.wait(), 20)
            proxy.cut()
        load.stopped = True
        await asyncio.gather(*writers)
        await hand.works_again()
        with contextlib.suppress(AtlasError):
            await hand.store.head()
        await hand.works_again()
        await load.must_be_there()
        await hand.must_be_sound()
