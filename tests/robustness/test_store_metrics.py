"""The metrics of each store, on its real engine, as whoever scrapes a server sees them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from atlas_grpc.client import Client
from atlas_grpc.stores.vitals import SAMPLE_AGE, VITALS
from atlas_grpc.testing import serving
from tests.support import debian, postgres, redis
from tests.support.postgres_bench import Bench, Tools, bench_on
from tests.support.vitals import examined, vital

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.support.stores import Servers

pytestmark = pytest.mark.timeout(debian.TIMEOUT)

PREFIXES = {"memory": "atlas_memory_", "sqlite": "atlas_sqlite_", "postgresql": "atlas_postgresql_"}
Samples = dict[str, dict[tuple[str, ...], float]]
"""By name and label values."""
LIMIT = "atlas_redis_memory_limit_bytes"
"""Not told by a server without a limit."""


@asynccontextmanager
async def scraping(**options: Any) -> AsyncIterator[tuple[Any, Callable[[], Awaitable[Samples]]]]:
    """A server, and a function that scrapes it: answers samples by name and labels."""
    async with (
        serving(http_address="127.0.0.1:0", grace=0, **options) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http.port}", timeout=20) as http,
    ):

        async def scrape() -> Samples:
            found: Samples = {}
            for family in text_string_to_metric_families((await http.get("/metrics")).text):
                for sample in family.samples:
                    found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
            return found

        yield server, scrape


async def test_each_store_tells_all_that_is_documented_of_it(every_store: str) -> None:
    prefix = PREFIXES.get(every_store.partition(":")[0], "atlas_redis_")
    known = {name for name in VITALS if name.startswith(prefix)} - {LIMIT}
    async with scraping() as (server, scrape), Client(server.grpc_address) as client:
        await client.run("sleep", {"seconds": 0})
        told = await scrape()
        for operation in ("insert", "claim", "put", "get", "open_session", "counts"):
            assert told["atlas_store_operation_seconds_count"][operation, "OK"] >= 1
        assert told.get("atlas_scrape_errors_total", {}) == {}
        found = {re.sub("_(total|count|sum|bucket)$", "", name) for name in told}
        assert {name for name in found if name in VITALS} - {SAMPLE_AGE} == known
        assert (SAMPLE_AGE in told) == bool(known)
        if known:
            assert 0 <= told[SAMPLE_AGE][()] < 10


async def test_scrapes_share_one_question(every_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scraping() as (server, scrape):
        store = server._vitals._store
        asked = 0
        examine = store.examine

        async def noted() -> Any:
            nonlocal asked
            asked += 1
            return await examine()

        monkeypatch.setattr(store, "examine", noted)
        began = time.monotonic()
        await asyncio.gather(*(scrape() for _ in range(10)))
        for _ in range(10):
            await scrape()
        assert 1 <= asked <= 1 + (time.monotonic() - began) // 14


@contextmanager
def _postgres() -> Iterator[tuple[str, list[int]]]:
    with postgres.running() as server:
        assert server._process is not None
        yield server.url() + "?pool=2&timeout=2", [server._process.pid]


@contextmanager
def _valkey() -> Iterator[tuple[str, list[int]]]:
    with redis.running("valkey") as server:
        yield server.url(timeout=2), [server.pid]


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    children = [Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split() for pid in pids]
    for pid in [*pids, *(int(pid) for some in children for pid in some)]:
        os.kill(pid, number)


def _outcomes(told: Samples) -> set[str]:
    return {outcome for _, outcome in told["atlas_store_operation_seconds_count"]}


@pytest.mark.parametrize(
    ("running", "name"),
    [(_postgres, "atlas_postgresql_dead_tuples"), (_valkey, "atlas_redis_memory_bytes")],
    ids=["postgresql", "valkey"],
)
async def test_a_database_that_stands_still_holds_up_no_scrape(running: Any, name: str) -> None:
    with running() as (url, pids):
        async with scraping(store=url, worker=False) as (server, scrape):
            before = await scrape()
            _signal_all(pids, signal.SIGSTOP)
            try:
                # As if it were due.
                server._vitals._asked_at = None
                for _ in range(3):
                    began = time.monotonic()
                    told = await scrape()
                    assert time.monotonic() - began < 3
                    assert told[name] == before[name]
                    assert told[SAMPLE_AGE][()] > before[SAMPLE_AGE][()]
                await _comes(lambda told: "Unavailable" in _outcomes(told), scrape)
            finally:
                _signal_all(pids, signal.SIGCONT)

            async def scrape_when_due() -> Samples:
                server._vitals._asked_at = None
                return await scrape()

            await _comes(lambda told: told[SAMPLE_AGE][()] < 1, scrape_when_due)


async def _comes(true: Callable[[Samples], bool], scrape: Callable[[], Awaitable[Samples]]) -> None:
    async with asyncio.timeout(30):
        while not true(await scrape()):  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)


@pytest.fixture
async def bench(store_servers: Servers) -> AsyncIterator[Bench]:
    async with bench_on(store_servers.postgresql().url()) as made:
        yield made


async def test_whoever_holds_back_vacuum_is_seen(bench: Bench) -> None:
    """By a role without privileges too."""
    owner = await bench.store()
    raw = await bench.raw()
    role = f"{bench.schema}_server"
    await raw.execute(
        f'create role "{role}" login; grant usage on schema "{bench.schema}" to "{role}";'
        f'grant select, insert, update, delete on all tables in schema "{bench.schema}" to "{role}";'
        f'grant usage on all sequences in schema "{bench.schema}" to "{role}"'
    )
    try:
        store = await bench.store("&migrate=false", url=bench.url.replace("atlas@", f"{role}@"))
        kit = Tools(store)
        (job,) = await kit.new(1)
        holder = await asyncpg.connect(bench.url)
        try:
            async with holder.transaction(isolation="repeatable_read", readonly=True):
                await holder.fetchval("select 1")
                for _ in range(20):
                    job = await kit.step(job)
                assert await examined(store, "atlas_postgresql_oldest_xmin_age", "backend") >= 20

                async def seen() -> bool:
                    # What other connections counted reaches the statistics when they have been idle for a moment.
                    return await examined(store, "atlas_postgresql_dead_tuples", "job_states") >= 10

                await kit.eventually(seen, "dead rows are seen")
                # A reader holds back no feed.
                assert vital(store, "atlas_postgresql_feed_lag_seconds") == 0
        finally:
            await holder.close()
        assert await examined(store, "atlas_postgresql_oldest_xmin_age", "backend") < 20
        assert await examined(owner, "atlas_postgresql_live_tuples", "job_specs") >= 0
        await store.close()
    finally:
        await raw.execute(f'drop owned by "{role}"; drop role "{role}"')
