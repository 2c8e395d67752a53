"""A job that kills what executes it ends FAILED after exactly its attempts, and costs its neighbours no more than a
lost worker does."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import Client
from atlas_grpc.client import JobState, new_job
from atlas_grpc.testing import serving
from tests.support.worked import Worked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.client import JobHandle

HANDLERS = str(Path(__file__).with_name("poison_handlers.py"))
ATTEMPTS = 4
"""Of a poison job, as its handler says."""
PATIENCE = 40.0

pytestmark = pytest.mark.slow


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of what began."""
    path = tmp_path / "executions"
    path.touch()
    monkeypatch.setenv("ATLAS_TEST_EXECUTIONS", str(path))
    return path


def begins(path: Path) -> Counter[str]:
    """How often each job began."""
    return Counter(line.split()[0] for line in path.read_text("ascii").splitlines())


class Crew:
    """Workers, started again whenever they die."""

    def __init__(self, *workers: Worked) -> None:
        self.deaths: Counter[str] = Counter()
        """Of workers, by the name of the life."""
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await asyncio.gather(*(worker.start() for worker in self._workers))
        self._tasks = [asyncio.create_task(self._supervise(worker)) for worker in self._workers]

    async def _supervise(self, worker: Worked) -> None:
        while True:
            await worker.ended(PATIENCE * 2)
            self.deaths[worker.life_name] += 1
            await worker.start()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))
        assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []


@asynccontextmanager
async def a_crew(workers: int, *flags: str) -> AsyncIterator[tuple[Client, Crew]]:
    """A server with so many workers elsewhere."""
    async with serving(worker=False, grace=0, lease=2.0) as server, Client(server.grpc_address) as client:
        crew = Crew(*(Worked(f"w{n}", [server.grpc_address], HANDLERS, *flags) for n in range(workers)))
        try:
            await crew.start()
            yield client, crew
        finally:
            await crew.close()


async def ended(jobs: list[JobHandle]) -> list[JobHandle]:
    return [await job.wait(timeout=PATIENCE) for job in jobs]


async def test_a_job_that_kills_its_process_costs_its_neighbours_nothing(begun: Path) -> None:
    async with a_crew(1, "--handler-processes", "2") as (client, crew):
        poison = [await client.submit("kills_its_process") for _ in range(3)]
        names = ("neighbour_in_a_process", "neighbour_in_a_thread", "neighbour")
        neighbours = await client.submit_many(new_job(names[number % 3]) for number in range(90))
        for job in await ended(poison):
            assert (job.state, job.error.reason) == (JobState.FAILED, "PROCESS_DIED")
            assert [attempt.outcome for attempt in job.attempts] == ["FAILED"] * ATTEMPTS
        for job in await ended(neighbours):
            assert (job.state, len(job.attempts)) == (JobState.SUCCESS, 1)
        assert not crew.deaths
    counts = begins(begun)
    assert [counts[job.id] for job in poison] == [ATTEMPTS] * 3


@pytest.mark.parametrize("kind", ["kills_its_worker", "kills_its_worker_from_a_process"])
async def test_a_job_that_kills_its_worker_costs_its_neighbours_no_more_than_their_workers(
    begun: Path, kind: str
) -> None:
    neighbours: list[JobHandle] = []
    async with a_crew(2, "--concurrency", "8", "--handler-processes", "1") as (client, crew):
        poison = await client.submit(kind)
        end = asyncio.ensure_future(poison.wait(timeout=PATIENCE))
        while not end.done():
            batch = await client.submit_many(new_job("neighbour") for _ in range(20))
            neighbours += await ended(batch[:1]) + batch[1:]
        job = end.result()
        neighbours = await ended(neighbours)
        deaths = crew.deaths
    assert (job.state, job.error.reason) == (JobState.FAILED, "WORKER_LOST")
    assert [attempt.outcome for attempt in job.attempts] == ["LOST"] * ATTEMPTS
    assert deaths.total() == begins(begun)[job.id] == ATTEMPTS
    assert deaths.keys() == {attempt.worker for attempt in job.attempts}
    for neighbour in neighbours:
        *earlier, last = neighbour.attempts
        assert (neighbour.state, last.outcome) == (JobState.SUCCESS, "SUCCEEDED")
        assert {attempt.outcome for attempt in earlier} <= {"LOST", "RELEASED"}
        lost = Counter(attempt.worker for attempt in earlier)
        assert lost <= deaths, f"{neighbour.id} was taken from workers that lived, or more than once: {lost}"
