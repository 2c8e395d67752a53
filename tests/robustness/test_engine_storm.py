"""kill -9 of the database, again and again, under load: nothing that was acknowledged is lost, the server stays, and it
works within a second after the database takes connections again."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support import debian, postgres, redis
from tests.support.history import check, summary
from tests.support.served import atlas
from tests.support.stores import SHARED, chosen
from tests.support.storm import HANDLERS, Storm, told_of, wrong_ends
from tests.support.waiting import RunningTime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer
    from tests.support.redis import RedisServer

JOBS = 3_000
SEED = int(os.environ.get("ATLAS_TEST_STORM_SEED", "1"))
OUTAGES = (10, 10, 400, 10, 1_500)
"""How many calls fail before the database is started again: so short outages are, and so long."""
BACK = 1.0
"""Seconds within which the server works again."""


@contextmanager
def durable(name: str) -> Iterator[PostgresServer | RedisServer]:
    """A database server that keeps what it acknowledged."""
    if name == "postgresql":
        with postgres.running(fsync=True) as database:
            yield database
    else:
        with redis.running(name, "--appendonly", "yes", "--appendfsync", "always") as server:
            yield server


@pytest.mark.slow
@pytest.mark.timeout(debian.TIMEOUT)
@pytest.mark.parametrize("name", [name for name in chosen() if name in SHARED])
async def test_a_database_that_is_killed_again_and_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = tmp_path / "executions"
    monkeypatch.setenv("ATLAS_TEST_EXECUTIONS", str(executions))
    with durable(name) as database:
        flags = ["--store", database.url(), "--handlers", HANDLERS, "--lease", "2s", "--slots", "400"]
        async with RunningTime() as time, atlas(*flags) as server:
            storm = Storm(server.stub, executions, JOBS, SEED, time.now)
            storm.start()
            try:
                took = await kill_again_and_again(database, storm)
                await storm.finish()
            finally:
                await storm.stop()
            assert server.running
    print(
        told_of(storm), f"; answered and started after {[tuple(round(t, 3) for t in pair) for pair in took]} s", sep=""
    )
    found = check(storm.history)
    assert not found, summary(found)
    assert wrong_ends(storm) == []
    assert len(storm.history.final) == JOBS
    assert max(answered for answered, _ in took) <= BACK


async def kill_again_and_again(database: PostgresServer | RedisServer, storm: Storm) -> list[tuple[float, float]]:
    """Answers how long the server took each time until a submit was answered, and until a job was started."""
    rng = random.Random(SEED)
    share = JOBS // (len(OUTAGES) + 1)
    took: list[tuple[float, float]] = []
    for refusals in OUTAGES:
        storm.release(share)
        await storm.reaches(storm.told + rng.randrange(1, share // 2))
        await asyncio.to_thread(database.kill)
        await storm.notices(refusals)
        await asyncio.to_thread(database.start)
        took.append(await storm.recovers())
    return took
