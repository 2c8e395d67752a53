"""Writes to a SQLite store until it is killed, and tells on stdout what it begins and what was acknowledged:

begin <id> …            an insert of these jobs, all of them or none
done <id>=<version> …   these records are acknowledged
note <kind> <number>    both documents of the kind are of this number at least
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from atlas_grpc import lifecycle
from atlas_grpc.clock import SystemClock
from atlas_grpc.model import SECOND, Ask, Content, Job, LogLine, Progress, Severity, Succeeded, Update
from atlas_grpc.stores.sqlite import SqliteStore, connection
from atlas_grpc.testing.stores import StoreFactory
from atlas_grpc.testing.stores._kit import Kit, Listener


def tell(word: str, *what: str) -> None:
    os.write(1, " ".join([word, *what, "\n"]).encode())


def acknowledged(jobs: list[Job]) -> None:
    tell("done", *(f"{job.id}={job.version}" for job in jobs))


async def live(kit: Kit, name: str) -> None:
    """Jobs that are inserted, claimed, told about, finished or given back, and some deleted, for ever."""
    store = kit.store
    await store.open_session(name, 3_600 * SECOND, name.encode())
    for turn in range(1_000_000):
        new = [
            kit.job(type=name, request_id=f"{name} {kit.rng.random()}", payload=Content(b'{"x":1}')) for _ in range(7)
        ]
        tell("begin", *(job.id for job in new))
        acknowledged([job for job in await store.insert(new) if job is not None])
        taken = await store.claim(name, name, [Ask(name, 5)], 5)
        acknowledged(taken)
        lines = (LogLine(Severity.INFO, f"turn {turn}"),)
        await store.report([Update(job.id, job.fence, Progress(turn), lines) for job in taken])
        now = store.now()
        ends = [lifecycle.ended(job, now, Succeeded(Content(b'"y"')), kit.rng) for job in taken[:3]]
        ends += [lifecycle.released(job, now, 0) for job in taken[3:]]
        assert all(await store.put(ends, [job.version for job in taken]))
        acknowledged(ends)
        await store.put_documents(name, dict.fromkeys(("one", "other"), b"%d" % turn))
        tell("note", name, str(turn))
        if turn % 3 == 0:
            tell("doom", ends[0].id)
            assert await store.delete(ends[:1]) == [True]
            tell("gone", ends[0].id)


class NoFactory(StoreFactory):
    def __call__(self, **_limits: int):
        raise NotImplementedError


async def main(path: str, seed: int) -> None:
    connection._CHECKPOINT_PAGES = 40  # so that some are killed in the middle of a checkpoint
    store = SqliteStore(path, SystemClock())
    await store.open(Listener())
    kits = [Kit(NoFactory(), store) for _ in range(3)]
    for number, kit in enumerate(kits):
        kit.rng = random.Random(seed * 10 + number)
    await asyncio.gather(*(live(kit, f"s{seed}-{number}") for number, kit in enumerate(kits)))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
