"""kill -9 and SIGSTOP of workers elsewhere, and kill -9 of the two servers they work for, again and again under load:
nothing is lost, no job has two results, no worker that was given up is heard, and everything ends soon after.

`ATLAS_TEST_STORM=full` makes it as large as is promised, `ATLAS_TEST_STORM_SEED` (a number) another storm.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import debian
from tests.support.history import check, summary
from tests.support.served import Served
from tests.support.stores import SHARED, chosen
from tests.support.storm import BATCH, HANDLERS, Storm, told_of, wrong_ends
from tests.support.worked import Worked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = os.environ.get("ATLAS_TEST_STORM") == "full"
SEED = int(os.environ.get("ATLAS_TEST_STORM_SEED", "1"))
JOBS = 10_000 if FULL else 1_500
FAULTS = {"worker": 60, "server": 20, "stop": 20} if FULL else {"worker": 6, "server": 3, "stop": 2}
LEASE = 2.0
SOON = LEASE + 2
"""Seconds after the last fault within which every job has ended."""
MIX = "i" * 62 + "s" * 14 + "f" * 8 + "h" * 3 + "e" * 4 + "l" * 3 + "t" * 3 + "c" * 3


class Spread:
    """A stub whose calls go to each of several servers in turn; so does the repeat of one that failed."""

    def __init__(self, servers: list[Served]) -> None:
        self._turns = itertools.cycle(servers)

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return getattr(next(self._turns).stub, method)(*args, **options)

        return call


class Fleet:
    """Two servers on one store, three workers, and what is broken of them."""

    def __init__(self, store: str, folder: Path) -> None:
        self.rng = random.Random(SEED)
        self._folder = folder
        flags = ["--store", store, "--no-worker", "--lease", f"{LEASE:g}s", "--log-format", "json"]
        self.servers = [Served(flags, with_spare=True) for _ in range(2)]
        self.workers: list[Worked] = []
        self.done: Counter[str] = Counter()
        """What was broken, and how."""
        self._stopped: Worked | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await asyncio.gather(*(server.start() for server in self.servers))
        tap = {"ATLAS_TEST_ANSWERS": str(self._folder / "answers")}
        addresses = [server.address for server in self.servers]
        for name, targets, more in (
            ("rude", addresses, {"ATLAS_TEST_RUDE": "1"}),
            ("steady", addresses[::-1], {}),
            ("other", addresses, {}),
        ):
            flags = ("--queues", f"default,{name}", "--concurrency", "100", "--handler-processes", "2")
            self.workers.append(Worked(name, targets, HANDLERS, *flags, environment=tap | more, with_spare=True))
        await asyncio.gather(*(worker.start() for worker in self.workers))

    async def close(self) -> None:
        if self._stopping is not None:
            self._stopping.cancel()
            await asyncio.gather(self._stopping, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in (*self.workers, *self.servers)))

    async def fault(self, kind: str, storm: Storm) -> None:
        """Breaks something of that kind that executes jobs, or serves those that do."""
        if kind == "server":
            server = self.rng.choice(self.servers)
            await server.kill()
            await server.start()
        elif kind == "stop":
            await self.woken()
            await self._stop(storm)
        else:
            await self.kill_a_worker(storm)
            return
        self.done[kind] += 1

    async def kill_a_worker(self, storm: Storm) -> float:
        """Answers when it was killed: seconds since 1970."""
        self.done["worker"] += 1
        await storm.until(lambda: self._busy(storm))
        worker = self.rng.choice(self._busy(storm))
        await worker.kill()
        killed = time.time()
        await worker.start()
        return killed

    def _busy(self, storm: Storm) -> list[Worked]:
        return [worker for worker in self.workers if worker is not self._stopped and storm.at(worker.life_name)]

    async def _stop(self, storm: Storm) -> None:
        """Stops a worker, every other time the rude one, while it executes a job that it cannot end before it is given
        up; it goes on once it has lost all, three lease times later at the earliest."""
        rude, *rest = self.workers
        worker = rude if self.done["stop"] % 2 == 0 else self.rng.choice(rest)
        storm.want("long", worker.name)
        await storm.until(lambda: storm.at(worker.life_name, "long"))
        worker.send(signal.SIGSTOP)
        self._stopped = worker
        self._stopping = asyncio.create_task(self._wake(worker, storm))

    async def _wake(self, worker: Worked, storm: Storm) -> None:
        await asyncio.sleep(3 * LEASE)
        await storm.until(lambda: not storm.at(worker.life_name))
        worker.send(signal.SIGCONT)
        self._stopped = None

    async def woken(self) -> None:
        """Returns when no worker is stopped any more."""
        if self._stopping is not None:
            await self._stopping


@pytest.mark.slow
@pytest.mark.timeout(1_800 if FULL else debian.TIMEOUT)
@pytest.mark.parametrize("every_store", [name for name in chosen() if name in SHARED], indirect=True)
async def test_workers_and_servers_that_are_killed_and_stopped_again_and_again(
    every_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = tmp_path / "executions"
    monkeypatch.setenv("ATLAS_TEST_EXECUTIONS", str(executions))
    fleet = Fleet(every_store, tmp_path)
    began = time.monotonic()
    try:
        await fleet.start()
        storm = Storm(Spread(fleet.servers), executions, JOBS, SEED, mix=MIX)
        storm.start()
        try:
            last_fault = await break_again_and_again(fleet, storm)
            await storm.finish()
        finally:
            await storm.stop()
    finally:
        await fleet.close()
    answers = Counter(answer.accepted for answer in storm.history.answers)
    print(
        f"{told_of(storm)}; results accepted: {answers[True]}, refused: {answers[False]}; faults: {dict(fleet.done)}; "
        f"the last job ended {storm.last_end - last_fault:.2f} s after the last; {time.monotonic() - began:.1f} s"
    )
    found = check(storm.history)
    assert not found, summary(found)
    assert wrong_ends(storm) == []
    assert len(storm.history.final) == JOBS
    if FULL:  # of a few that are stopped, maybe none had a result to hand in
        assert answers[False], "no worker that had been given up handed in a result"
    assert storm.last_end - last_fault < SOON


async def break_again_and_again(fleet: Fleet, storm: Storm) -> float:
    """The faults come after a random number of acknowledgements and steps. The last, a worker's death, comes when
    nothing but jobs in hand is left; answers when: seconds since 1970."""
    share = (JOBS - FAULTS["stop"] * BATCH) // sum(FAULTS.values()) // BATCH * BATCH
    for kind in faults():
        storm.release(share)
        await storm.reaches(storm.told + fleet.rng.randrange(1, 2 * share))
        await fleet.fault(kind, storm)
    await fleet.woken()
    storm.release(JOBS)
    await storm.until(lambda: len(storm.types) == JOBS and storm.left == 0)
    return await fleet.kill_a_worker(storm)


def faults() -> Iterator[str]:
    """In a random order, but for the last."""
    kinds = list(Counter(FAULTS).elements())
    kinds.remove("worker")
    random.Random(SEED).shuffle(kinds)
    return iter(kinds)
