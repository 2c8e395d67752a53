"""How servers may be set up: what is refused, what is full, what a replica knows, a cluster, and what rest costs."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc import lifecycle
from atlas_grpc.clock import SystemClock
from atlas_grpc.errors import StoreFull, Unavailable
from atlas_grpc.model import Ask, LogLine, Progress, Severity, Update
from atlas_grpc.stores.redis import RedisLimits, UnfitServer
from atlas_grpc.stores.redis.pool import locate
from atlas_grpc.stores.redis.url import parse
from atlas_grpc.testing.stores._kit import Listener
from tests.robustness.redis.conftest import HOUR, Hand, opened
from tests.support import redis
from tests.support.proxy import proxied
from tests.support.vitals import number, vital
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.redis import RedisServer


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused(policy: str) -> None:
    with redis.running("valkey", "--maxmemory-policy", policy) as server:
        with pytest.raises(UnfitServer) as caught:
            async with opened(server.url()):
                pass
        assert caught.value.setting == "maxmemory-policy"
        assert caught.value.found == policy
        assert "noeviction" in str(caught.value)


async def test_a_server_that_wants_another_password_is_refused() -> None:
    with redis.running("valkey") as server:
        with server.client() as client:
            client.config_set("requirepass", "right")
        url = server.url().replace("unix://", "unix://:wrong@", 1)
        with pytest.raises(UnfitServer) as caught:
            async with opened(url):
                pass
        assert "wrong" not in str(caught.value)
        async with opened(url.replace("wrong", "right")) as hand:
            await hand.new(1)


async def test_a_full_server_refuses_new_jobs_and_finishes_old_ones() -> None:
    with redis.running("valkey", "--maxmemory-policy", "noeviction") as server, server.client() as client:
        async with opened(server.url(audit=0)) as hand:
            await hand.store.open_session("s", HOUR)
            jobs = await hand.new(100, payload=b'"' + b"x" * 10_000 + b'"', request_id="")
            (named,) = await hand.new(1, request_id="named", type="other")
            await hand.store.put_documents("kind", {"a": b"1"})
            client.config_set("maxmemory", client.info("memory")["used_memory"])
            assert await hand.store.insert([hand.job(), hand.job(request_id="named"), hand.job()]) == [
                None,
                named,
                None,
            ]
            claimed = await hand.claim(10)
            assert len(claimed) == 10
            with pytest.raises(StoreFull):
                await hand.store.report([Update(claimed[0].id, claimed[0].fence, None, (LogLine(Severity.INFO, "x"),))])
            assert await hand.store.renew(["s"], HOUR) == [True]
            await hand.store.open_session("t", HOUR, b"info")
            await hand.store.put_documents("kind", {"a": b"1"})
            with pytest.raises(StoreFull):
                await hand.store.put_documents("kind", {"a": b"2", "b": b"1"})
            assert await hand.store.documents("kind") == {"a": b"1"}
            done = await hand.finish(claimed)
            assert await hand.store.delete(done) == [True] * 10
            waiting = await hand.store.get([job.id for job in jobs[10:60]])
            assert await hand.store.delete([job for job in waiting if job is not None]) == [True] * 50
            await hand.new(1)
            await hand.must_be_sound()


async def test_documents_that_are_there_already_are_not_written(hand: Hand, shared_valkey: RedisServer) -> None:
    documents = {f"{n}": b"x" * n for n in range(3_000)}
    await hand.store.put_documents("kind", documents)
    with shared_valkey.client() as client:
        before = _written(client)
        await hand.store.put_documents("kind", documents)
        await hand.store.put_documents("kind", {"7": documents["7"]})
        assert _written(client) == before
        await hand.store.put_documents("kind", documents | {"7": b"new"})
        assert _written(client) == before + 1
    assert await hand.store.documents("kind") == documents | {"7": b"new"}


def _written(client: Any) -> int:
    """How often documents were written."""
    calls: int = client.info("commandstats").get("cmdstat_hset", {}).get("calls", 0)
    return calls


async def test_a_write_waits_for_the_file() -> None:
    with redis.running("valkey", "--appendonly", "yes", "--appendfsync", "always") as server:
        async with opened(server.url(audit=0, wait="aof")) as hand:
            (job,) = await hand.new(1, request_id="r")
            assert await hand.store.insert([hand.job(request_id="r")]) == [job]
            with server.client() as client:
                assert client.info("commandstats")["cmdstat_waitaof"]["calls"] >= 2
                await hand.store.put_documents("kind", {"a": b"1"})
                client.config_resetstat()
                await hand.store.put_documents("kind", {"a": b"1"})
                told = client.info("commandstats")
                assert told["cmdstat_waitaof"]["calls"] == 1
                assert "cmdstat_hset" not in told
                assert told["cmdstat_incrby"]["calls"] == 1, (
                    "there is something to wait for: another call may have failed to"
                )


async def test_waiting_for_a_file_needs_one(shared_valkey: RedisServer) -> None:
    with pytest.raises(UnfitServer) as caught:
        async with opened(shared_valkey.url(wait="aof")):
            pass
    assert caught.value.setting == "appendonly"


async def test_a_write_that_no_replica_confirms_is_not_acknowledged(shared_valkey: RedisServer) -> None:
    prefix = redis.new_prefix()
    async with opened(shared_valkey.url(prefix, audit=0, timeout=0.4, wait="replicas:1")) as hand:
        with pytest.raises(Unavailable):
            await hand.store.insert([hand.job()])
        with pytest.raises(Unavailable):
            await hand.store.put_documents("kind", {"a": b"1"})
        await until(lambda: hand.heard.doubts > 0)
    with shared_valkey.client() as client:
        redis.forget(client, prefix)


async def test_a_failover_that_lost_writes() -> None:
    """A replica that was cut off takes over: what it lacks is gone, and that is said; nothing else is."""
    with (
        redis.running("valkey", port=redis.free_port()) as first,
        redis.running("valkey") as second,
        first.client() as master,
        second.client() as replica,
    ):
        replica.replicaof("127.0.0.1", first.port)
        async with proxied(first.socket) as proxy, opened(f"redis://127.0.0.1:{proxy.port}?audit=0") as hand:
            await hand.store.open_session("s", HOUR)
            kept = await hand.new(20)
            claimed = await hand.claim(5)
            await hand.store.put_documents("kind", {"a": b"1"})
            await until(lambda: master.info("replication").get("slave0", {}).get("state") == "online")
            assert await _same(master, replica)
            replica.replicaof("NO", "ONE")
            lost = await hand.new(5)
            late = await hand.claim(5)
            await hand.store.put_documents("kind", {"a": b"2", "b": b"1"})
            epoch = hand.store.epoch
            proxy.upstream = second.socket
            first.kill()
            proxy.cut()
            await hand.meets_another()
            assert hand.store.epoch != epoch
            assert await hand.store.get([job.id for job in lost]) == [None] * 5
            assert await hand.store.documents("kind") == {"a": b"1"}
            assert (await hand.store.get([kept[0].id]))[0] == claimed[0]
            again = await hand.claim(100)
            assert {job.id for job in again} == {job.id for job in kept} - {job.id for job in claimed}
            assert min(job.fence for job in again) > max(job.fence for job in late)
            assert [job.version for job in late] == [job.version for job in again[:5]], "versions are given again"
            assert await hand.store.put(hand.ended(late), [job.version for job in late]) == [False] * 5
            await hand.finish(again)
            await hand.must_be_sound()


async def _same(master: Any, replica: Any) -> bool:
    await until(
        lambda: master.info("replication")["master_repl_offset"] == replica.info("replication")["slave_repl_offset"]
    )
    return True


async def test_a_cluster_keeps_a_prefix_in_one_slot() -> None:
    with redis.running(
        "valkey", "--cluster-enabled", "yes", "--cluster-port", str(redis.free_port()), port=redis.free_port()
    ) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True))
        async with opened(server.url(audit=0)) as hand, opened(server.url(audit=0)) as other:
            await hand.store.open_session("s", HOUR)
            await hand.new(150)
            done = await hand.finish(await hand.claim(150))
            await until(lambda: other.heard.news)
            assert await hand.store.delete(done) == [True] * 150
            await hand.must_be_sound()


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_sentinel_says_who_is_the_master(tmp_path: Any) -> None:
    port, sentinel_port = redis.free_port(), redis.free_port()
    with (
        redis.running("valkey", port=port),
        redis.running("valkey", port=redis.free_port()) as second,
        second.client() as replica,
    ):
        replica.replicaof("127.0.0.1", port)
        sentinel = redis.RedisServer("valkey", tmp_path, port=sentinel_port)
        sentinel.be_sentinel("jobs", port)
        try:
            sentinel.start()
            with sentinel.client() as watch:
                await until(lambda: watch.execute_command("SENTINEL", "REPLICAS", "jobs"))
                url = f"redis+sentinel://127.0.0.1:{sentinel_port}/jobs?audit=0"
                async with opened(url) as hand:
                    (job,) = await hand.new(1)
                    await until(lambda: replica.info("replication")["master_link_status"] == "up")
                    await until(lambda: _try(watch, "SENTINEL", "FAILOVER", "jobs") == b"OK")
                    await until(lambda: hand.store._link.arrivals >= 2, patience=40)
                    await hand.works_again()
                    assert await hand.store.get([job.id]) == [job]
                    assert replica.role()[0] == b"master"
        finally:
            sentinel.stop()


def _try(client: Any, *command: str) -> Any:
    try:
        return client.execute_command(*command)
    except Exception as error:
        return error


async def test_heartbeats_and_progress_leave_nothing_behind(hand: Hand, shared_valkey: RedisServer) -> None:
    await hand.store.open_session("s", HOUR)
    await hand.new(1)
    (job,) = await hand.claim(1)

    async def beat(times: int) -> None:
        for n in range(times):
            assert await hand.store.renew(["s"], HOUR) == [True]
            assert await hand.store.report([Update(job.id, job.fence, Progress(float(n), 9_999.0, "x"))]) == [True]

    await beat(3)
    with shared_valkey.client() as client:
        prefix = hand.store._link.target.options.prefix

        def weight() -> dict[bytes, int]:
            return {key: client.memory_usage(key) for key in client.scan_iter(f"{{{prefix}}}:*")}

        before = weight()
        await beat(300)
        assert weight() == before


async def test_two_stores_hear_of_each_other_at_once(hand: Hand) -> None:
    other = type(hand.store)(hand.store._link.target, SystemClock())
    heard = Listener()
    await other.open(heard)
    try:
        for _ in range(20):
            heard.ready = 0
            began = time.monotonic()
            await hand.new(1)
            await until(lambda: heard.ready > 0, patience=2)
            assert time.monotonic() - began < 1
    finally:
        await other.close()


async def test_another_store_is_told_of_which_kinds_jobs_became_ready(hand: Hand) -> None:
    other = type(hand.store)(hand.store._link.target, SystemClock())
    heard = Listener()
    await other.open(heard)
    try:
        heard.kinds.clear()
        jobs = [hand.job(type=name, delay=delay) for name, delay in (("a", 0), ("b", 0), ("a", 0), ("c", HOUR))]
        await hand.store.insert(jobs)
        await until(lambda: [("a", "main"), ("b", "main")] in heard.kinds)
        await hand.store.open_session("s", HOUR)
        (taken,) = await hand.store.claim("s", "w", [Ask("b", 1)], 1)
        heard.kinds.clear()
        await hand.store.put([lifecycle.released(taken, hand.store.now(), 0)], [taken.version])
        await until(lambda: [("b", "main")] in heard.kinds)
    finally:
        await other.close()


async def test_vitals_are_told(hand: Hand) -> None:
    store = hand.store
    await store.open_session("s", HOUR)
    await hand.new(250)
    await hand.finish(await hand.claim(250))
    assert vital(store, "atlas_redis_connections") == 2
    assert vital(store, "atlas_redis_connects") == 2
    assert vital(store, "atlas_redis_losses") == vital(store, "atlas_redis_audit_repairs") == 0
    told = await store.examine()
    assert told["atlas_redis_aof"] == {"always": False, "everysec": False, "no": False, "off": True, "unknown": False}
    assert told["atlas_redis_persistence_ok"] == {"aof": True, "snapshot": True}
    assert 600 < number(told["atlas_redis_feed_changes"]) <= 750
    assert 0 < number(told["atlas_redis_feed_entries"]) < 50
    assert number(told["atlas_redis_memory_bytes"]) > 100_000
    assert number(told["atlas_redis_clients"]) >= 3
    assert "atlas_redis_memory_limit_bytes" not in told


async def test_what_ends_while_it_is_looked_for_what_is_too_much_is_looked_for_too(shared_valkey: RedisServer) -> None:
    prefix = redis.new_prefix()
    async with opened(shared_valkey.url(prefix, audit=0), RedisLimits(max_finished=3)) as hand:
        link = hand.store._link
        commands, gate, counted = link.commands, asyncio.Event(), []

        async def gated(asked: Any) -> Any:
            answers = await commands(asked)
            if asked and asked[0][0] == "ZCARD":
                counted.append(answers[0])
                if answers[0] == 3:
                    await gate.wait()
            return answers

        link.commands = gated  # type: ignore[method-assign]
        await hand.store.open_session("s", HOUR)
        jobs = await hand.new(5)
        for taken in await hand.claim(4):
            await hand.finish([taken])
        await until(lambda: 3 in counted)
        await hand.finish(await hand.claim(1))
        gate.set()
        await until(lambda: counted.count(3) >= 2)
        kept = [job is not None for job in await hand.store.get([job.id for job in jobs])]
        assert kept == [False, False, True, True, True]
    with shared_valkey.client() as client:
        redis.forget(client, prefix)


async def test_the_next_sentinel_is_asked_when_one_does_not_answer(shared_valkey: RedisServer) -> None:
    """And none of the connections to them stays open, at whatever turn the search is given up."""
    port, closed = redis.free_port(), redis.free_port()
    with socket.create_server(("127.0.0.1", port)), redis.running("valkey", port=redis.free_port()) as master:
        url = f"redis+sentinel://127.0.0.1:{closed},127.0.0.1:{port},127.0.0.1:{master.port}/jobs?connect_timeout=0.2"
        with pytest.raises(Unavailable, match=r"unknown command"):
            await locate(parse(url))
        with master.client() as client:
            await until(lambda: len(client.client_list()) == 1)
            for turns in range(60):
                target = parse(f"redis+sentinel://127.0.0.1:{master.port}/jobs")
                looking = asyncio.ensure_future(locate(target))
                for _ in range(turns):
                    await asyncio.sleep(0)
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
            await until(lambda: len(client.client_list()) == 1)
