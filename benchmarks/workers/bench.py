"""What the sections share: how much is measured, and a server with a worker beside it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.over_stores import OneStore, rated
from benchmarks.servers import SLOTS, Atlas, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.meter import Answer

TYPES = ["gate", "nap", "noop", "stamp"]


@dataclass(frozen=True)
class Plan:
    """`seconds` and `warmup` are of one timed round; `queued` jobs are drained, those that sleep `at_once` at a time;
    so many `idle` workers are connected, and watched for `idle_seconds`."""

    seconds: float
    warmup: float
    rounds: int
    queued: int
    batch: int
    at_once: int
    idle: tuple[int, ...]
    idle_seconds: float


QUICK = Plan(0.4, 0.1, 1, 500, 50, 100, (5,), 0.5)
NORMAL = Plan(3.0, 0.5, 3, 20_000, 500, 1_000, (100, 1_000), 30.0)


class WorkerBench(OneStore[Plan]):
    """The run on one store."""

    @contextmanager
    def inside(self) -> Iterator[Pair]:
        """A fresh server that works by itself."""
        with self.server() as atlas:
            yield Pair(self, atlas, None, SLOTS)

    @contextmanager
    def apart(self, *, slots: int = SLOTS, unary: bool = False) -> Iterator[Pair]:
        """A fresh server that does not work, and a worker: Atlas' own, or one that uses the unary calls."""
        with self.server("--no-worker") as atlas:
            program = ["-m", "benchmarks.workers.unary", atlas.target, str(slots)] if unary else []
            with Worker(atlas.target, self.cpus, slots=slots, program=program) as worker:
                self.clients.call("await_types", target=atlas.target, types=TYPES)
                yield Pair(self, atlas, worker, slots)

    def server(self, *options: str) -> Atlas:
        """A fresh server on an empty store."""
        return Atlas(self.cpus, *options, store=self.engine.new_url())


class Pair:
    """A server, and its worker if there is one apart."""

    def __init__(self, bench: WorkerBench, atlas: Atlas, worker: Worker | None, slots: int) -> None:
        self.target = atlas.target
        self._bench = bench
        self._slots = slots
        pids = {"pid": atlas.pid, "engine": bench.engine.pid, "worker": worker.pid if worker else 0}
        self._where: dict[str, Any] = {"target": atlas.target, **pids}

    def drain(self, kind: str = "noop") -> Answer:
        """A round of jobs from a full queue."""
        jobs = self._bench.plan.queued
        arguments = {"jobs": jobs, "slots": self._slots, "batch": min(self._bench.plan.batch, jobs), "kind": kind}
        return rated(jobs, self._bench.clients.call("drain", **self._where, **arguments))

    def run_jobs(self) -> Answer:
        """A round of RunJob, one after the other, of jobs that tell when they began."""
        plan = self._bench.plan
        timing = {"seconds": plan.seconds, "warmup": plan.warmup}
        return self._bench.clients.call("run_jobs", **self._where, **timing, kind="stamp")
