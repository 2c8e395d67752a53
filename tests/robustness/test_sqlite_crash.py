"""kill -9 in the middle of writes: what was acknowledged is there, and nothing is half done."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.clock import SystemClock
from atlas_grpc.model import SECOND, State
from atlas_grpc.stores.sqlite import SqliteStore
from atlas_grpc.testing.stores._kit import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atlas_grpc.model import Job

CHILD = Path(__file__).with_name("sqlite_crash_child.py")
KILLS = 20


class Told:
    """What the children told before they were killed."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.batches: list[list[str]] = []
        self.doomed: set[str] = set()
        self.gone: set[str] = set()
        self.notes: dict[str, int] = {}

    def hear(self, line: str) -> None:
        word, *what = line.split()
        if word == "begin":
            self.batches.append(what)
        elif word == "done":
            self.versions.update((job_id, int(version)) for job_id, version in (one.split("=") for one in what))
        elif word == "doom":
            self.doomed.update(what)
        elif word == "gone":
            self.gone.update(what)
        elif word == "note":
            self.notes[what[0]] = int(what[1])


def run_and_kill(path: Path, seed: int, told: Told, lines: int) -> None:
    with subprocess.Popen([sys.executable, CHILD, path, str(seed)], stdout=subprocess.PIPE, text=True) as child:
        for line in whole_lines(child, lines):
            told.hear(line)


def whole_lines(child: subprocess.Popen[str], lines: int) -> Iterator[str]:
    """What the child says, which is killed after so many lines; what it said until it was dead counts too."""
    assert child.stdout is not None
    for number, line in enumerate(child.stdout):
        if number == lines:
            child.kill()
        if line.endswith("\n"):
            yield line
    assert child.wait() == -9, "it ended by itself"


@pytest.mark.slow
async def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    rng = random.Random(5)
    told = Told()
    fence = 0
    for seed in range(KILLS):
        run_and_kill(path, seed, told, rng.randrange(1, 120))
        fence = await check(path, told, fence)
    assert len(told.versions) > KILLS * 7
    assert told.gone
    assert told.notes


async def check(path: Path, told: Told, fence: int) -> int:
    """Opens the file and compares; answers the latest fence."""
    store = SqliteStore(str(path), SystemClock())
    await store.open(Listener())
    try:
        await everything_acknowledged_is_there(store, told)
        await nothing_is_half_done(store, told)
        await documents_are_there(store, told)
        assert await store.renew(["unknown"], SECOND) == [False]
        counts = await store.counts()
    finally:
        await store.close()
    with sqlite3.connect(path) as raw:
        assert raw.execute("pragma integrity_check").fetchone() == ("ok",)
        stored = {State(state): count for state, count in raw.execute("select state, count(*) from state group by 1")}
        assert {state: count for state, count in counts.states.items() if count} == stored
        (ready,) = raw.execute("select count(*) from state where ready").fetchone()
        assert sum(queue.depth for queue in counts.queues) == ready
        for table in ("spec", "name"):
            assert raw.execute(f"select count(*) from {table}").fetchone() == (sum(stored.values()),)
        for table in ("output", "log"):
            strays = f"select count(*) from {table} where n not in (select n from state)"
            assert raw.execute(strays).fetchone() == (0,)
        (latest,) = raw.execute("select fence from meta").fetchone()
    raw.close()
    assert latest >= fence, "fences never go back"
    return int(latest)


async def everything_acknowledged_is_there(store: SqliteStore, told: Told) -> None:
    ids = [job_id for job_id in told.versions if job_id not in told.doomed]
    for job_id, job in zip(ids, await store.get(ids), strict=True):
        assert job is not None, f"{job_id} is lost"
        assert job.version >= told.versions[job_id], f"a step of {job_id} is lost"
        consistent(job)
    assert await store.get(sorted(told.gone)) == [None] * len(told.gone), "what was deleted is back"


def consistent(job: Job) -> None:
    assert job.history[-1].version == job.version
    assert job.history[-1].state is job.state
    assert (job.result is not None) == (job.state is State.SUCCESS)
    assert bool(job.session) == (job.state is State.RUNNING)


async def nothing_is_half_done(store: SqliteStore, told: Told) -> None:
    for batch in told.batches:
        mine = [job_id for job_id in batch if job_id not in told.doomed]
        there = Counter(job is not None for job in await store.get(mine))
        assert len(there) <= 1, "an insert is there in part"
    told.batches = told.batches[-50:]


async def documents_are_there(store: SqliteStore, told: Told) -> None:
    infos = dict(await store.sessions())
    for kind, number in told.notes.items():
        found = await store.documents(kind)
        assert found["one"] == found["other"], "a put of documents is there in part"
        assert int(found["one"]) >= number, "an acknowledged document is lost"
        assert infos[kind] == kind.encode()
