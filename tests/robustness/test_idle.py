"""A whole server that has nothing to do, or only says that it lives: what it costs, and that nothing grows by it."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import pb
from tests.support import debian, postgres, redis
from tests.support.served import atlas
from tests.support.stores import DURABLE, chosen
from tests.support.waiting import RunningTime
from tests.support.weight import COUNTING, grown, statements, weight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.served import Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(debian.TIMEOUT)]

HANDLERS = str(Path(__file__).with_name("idle_handlers.py"))
WATCHED = 12.0
"""Seconds for which an idle server is looked at: longer than any of its periods."""
SETTLES = 6.0
STATEMENTS = 5.0
"""A second, of one server."""
CORE = 0.01
_TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture(params=[name for name in chosen() if name in DURABLE])
def lone_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a store whose database nobody else uses."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path / 'jobs.db'}"
        elif request.param == "postgresql":
            database = stack.enter_context(postgres.running(settings=COUNTING))
            yield f"{database.url()}?schema=lone"
        else:
            yield stack.enter_context(redis.running(request.param, "--appendonly", "yes")).url()


def cpu(server: Served) -> float:
    """Seconds of a core that it has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text("ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def test_an_idle_server_costs_next_to_nothing_and_nothing_grows(lone_store: str) -> None:
    async with (
        RunningTime() as time,
        atlas("--store", lone_store, "--http-address", "127.0.0.1:0") as server,
    ):
        job = pb.SubmitJobRequest(type="sleep")
        job.payload["seconds"] = 0
        for _ in range(20):
            assert (await server.stub.RunJob(pb.RunJobRequest(job=job), timeout=30).read()).update.job.id
        # What a start and jobs leave to do is done: sessions are renewed, jobs counted, an audit made.
        await _pass(time, SETTLES)
        shared = not lone_store.startswith("sqlite")
        before, asked, used, began = await weight(lone_store), 0, cpu(server), time.now()
        if shared:
            asked = await statements(lone_store)
        await _pass(time, WATCHED)
        seconds = time.now() - began
        rate = (await statements(lone_store) - asked) / seconds if shared else 0.0
        share = (cpu(server) - used) / seconds
        after = await weight(lone_store)
    print(f"{rate:.2f} statements/s, {share:.2%} of a core")
    assert grown(before, after) == {}
    assert rate <= STATEMENTS
    assert share <= CORE


async def _pass(time: RunningTime, seconds: float) -> None:
    until = time.now() + seconds
    while time.now() < until:  # noqa: ASYNC110 - the time itself is what is looked at
        await asyncio.sleep(0.1)


async def test_heartbeats_and_progress_write_nothing_that_grows(lone_store: str) -> None:
    async with atlas("--store", lone_store, "--handlers", HANDLERS, "--lease", "1s") as server:
        request = pb.SubmitJobsRequest(requests=[pb.SubmitJobRequest(type="busy") for _ in range(20)])
        answer = await server.stub.SubmitJobs(request, timeout=30)
        ids = [outcome.response.job.id for outcome in answer.outcomes]
        stream = server.stub.WatchJob(pb.WatchJobRequest(id=ids[0]), timeout=300)
        await _reports(stream, 60)
        before = await weight(lone_store)
        await _reports(stream, 60)
        after = await weight(lone_store)
        stream.cancel()
        for job_id in ids:
            await server.stub.CancelJob(pb.CancelJobRequest(id=job_id), timeout=30)
    assert grown(before, after) == {}


async def _reports(stream: object, count: int) -> None:
    """Returns when so many reports of progress came, which takes several renewals of the lease."""
    while count:
        count -= (await stream.read()).HasField("progress")  # type: ignore[attr-defined]
