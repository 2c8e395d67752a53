"""The measurements of one store, one function for each section.

A figure stands beside what the engine does by plain statements, in transactions of the same size and in the same run;
of one connection and of as many as the store has, whichever did more.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import wire
from benchmarks.bench import interleave, row_of
from benchmarks.report import Figure, Row
from benchmarks.servers import SLOTS, Atlas

from . import plan as aims

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.clients import Clients
    from benchmarks.meter import Answer
    from benchmarks.servers import Server

    from .engines import Engine
    from .plan import Plan

BATCHES_IN_FLIGHT = 4
_HANDLERS = "benchmarks.stores.handlers"
_FILL_CHUNK = 50_000


class StoreBench:
    """The run on one store."""

    def __init__(self, plan: Plan, clients: Clients, cpus: list[int], engine: Engine) -> None:
        self.plan = plan
        self.clients = clients
        self.engine = engine
        self._cpus = cpus
        self._start = time.monotonic()

    def tell(self, text: str) -> None:
        """Says on stderr how far it is."""
        took = time.monotonic() - self._start
        print(f"{took:6.0f} s  {self.engine.name}: {text}", file=sys.stderr, flush=True)

    def atlas(self, url: str | None = None) -> Atlas:
        """A fresh Atlas, on an empty store of the engine unless another is named."""
        return Atlas(self._cpus, store=url or self.engine.new_url(), handlers=_HANDLERS)

    def unary(self, server: Server, method: str, source: list[Any], in_flight: int) -> Answer:
        """One round of unary calls."""
        plan = self.plan
        arguments = {"source": source, "seconds": plan.seconds, "warmup": plan.warmup}
        return self.clients.load(in_flight, target=server.target, pid=server.pid, method=method, **arguments)

    def plain(self, op: str, **arguments: Any) -> Answer:
        """A command for the engine's plain queue."""
        return self.clients.call(f"plain_{op}", kind=self.engine.plain, address=self.engine.address, **arguments)

    def plain_enqueue(self, lanes: int, batch: int) -> Answer:
        """One round of plain inserts."""
        return self.plain("enqueue", lanes=lanes, batch=batch, seconds=self.plan.seconds, warmup=self.plan.warmup)

    def plain_by_lanes(self, measure: Callable[[int], Answer]) -> dict[str, Callable[[], Answer]]:
        """The sides of a comparison that are plain: by one connection, and by those that the store has."""
        lanes = sorted({1, self.engine.connections}) if self.engine.plain else []
        return {f"plain, {count} connection{'s' * (count > 1)}": partial(measure, count) for count in lanes}

    def rounds(self, what: str, scale: float, sides: dict[str, Callable[[], Answer]]) -> dict[str, list[Answer]]:
        """All sides by turns."""

        def told(name: str, measure: Callable[[], Answer]) -> Answer:
            answer = measure()
            self.tell(f"{what}: {name}: {answer['rate'] * scale:,.0f}/s")
            return answer

        return interleave({name: partial(told, name, side) for name, side in sides.items()}, self.plan.rounds)

    def fill_behind(self, atlas: Server, jobs: int) -> None:
        """Stores jobs that are ready and stay so, behind all others."""
        start, left = time.monotonic(), jobs
        while left:
            part = min(left, _FILL_CHUNK)
            arguments = {"kind": "behind", "jobs": part, "batch": min(part, 1000), "sample": 0, "priority": -1}
            self.clients.call("fill", target=atlas.target, **arguments)
            left -= part
            self.tell(f"{jobs - left:,} jobs behind, {(jobs - left) / (time.monotonic() - start):,.0f}/s")


def single(bench: StoreBench) -> list[Row]:
    """SubmitJob, one job a call, against the memory store and against plain inserts of one row."""
    lanes = bench.plan.in_flight
    source = ["submits", "behind"]
    name = f"SubmitJob, {lanes} in flight"
    with bench.atlas() as atlas, bench.atlas("memory://") as memory:
        sides: dict[str, Callable[[], Answer]] = {"Atlas": lambda: bench.unary(atlas, wire.SUBMIT, source, lanes)}
        if bench.engine.plain:
            sides["memory store"] = lambda: bench.unary(memory, wire.SUBMIT, source, lanes)
            sides |= bench.plain_by_lanes(lambda count: bench.plain_enqueue(count, 1))
        answers = bench.rounds("single", 1, sides)
    if not bench.engine.plain:
        return [row_of(bench.engine.name, name, "/s", answers["Atlas"], [])]
    by_memory = row_of(
        bench.engine.name, f"{name}; baseline: the memory store", "/s", answers["Atlas"], answers["memory store"]
    )
    row = _beside_plain(bench, f"{name}; baseline: single inserts", "/s", answers, 1)
    return [aims.ratio_at_least(by_memory, aims.SINGLE_BY_MEMORY.get(bench.engine.name)), row]


def batches(bench: StoreBench) -> list[Row]:
    """SubmitJobs against inserts of as many rows."""
    size = bench.plan.batch
    with bench.atlas() as atlas:
        sides: dict[str, Callable[[], Answer]] = {
            "Atlas": lambda: bench.unary(atlas, wire.SUBMIT_MANY, ["batches", "behind", size], BATCHES_IN_FLIGHT)
        }
        sides |= bench.plain_by_lanes(lambda count: bench.plain_enqueue(count, size))
        answers = bench.rounds("batches", size, sides)
    row = _beside_plain(bench, f"SubmitJobs, {size} a call, {BATCHES_IN_FLIGHT} in flight", "jobs/s", answers, size)
    return [aims.at_least(row, aims.ENQUEUED.get(bench.engine.name))]


def drain(bench: StoreBench) -> list[Row]:
    """No-op jobs through the worker in the server's process, from a full queue, against plain claims and finishes."""
    jobs = bench.plan.queued
    with bench.atlas() as atlas:
        sides: dict[str, Callable[[], Answer]] = {"Atlas": lambda: _drain(bench, atlas)}
        sides |= bench.plain_by_lanes(lambda count: _plain_drain(bench, count))
        answers = bench.rounds("drain", 1, sides)
    row = _beside_plain(bench, f"drain of {jobs:,} no-op jobs", "jobs/s", answers, 1)
    return _drained(bench, row, answers["Atlas"])


def _drain(bench: StoreBench, atlas: Server) -> Answer:
    plan = bench.plan
    pids = {"Atlas": atlas.pid} | ({"engine": bench.engine.pid} if bench.engine.pid else {})
    arguments = {"jobs": plan.queued, "slots": SLOTS, "batch": min(plan.batch, plan.queued)}
    answer = bench.clients.call("drain", target=atlas.target, pids=pids, **arguments)
    return {**_rate(plan.queued / answer["seconds"]), **answer}


def _plain_drain(bench: StoreBench, lanes: int) -> Answer:
    jobs = bench.plan.queued
    return _rate(jobs / bench.plain("drain", lanes=lanes, jobs=jobs, batch=SLOTS)["seconds"])


def _rate(rate: float) -> Answer:
    return {"rate": rate, "latencies": [], "server_cpu": 0.0, "client_cpu": 0.0}


def _drained(bench: StoreBench, row: Row, answers: list[Answer]) -> list[Row]:
    """The row, with what else a drain tells, and one by the client's clock."""
    jobs, least = bench.plan.queued, aims.DRAINED.get(bench.engine.name)
    for name in answers[0]["cpu"]:
        row.more[f"CPU of {name}"] = Figure("µs a job", [answer["cpu"][name] * 1e6 / jobs for answer in answers])
    row.more["jobs a claim"] = Figure("", [answer["claimed"] for answer in answers])
    seen = Row(row.section, "  the same as a client sees it", Figure("jobs/s", [jobs / a["known"] for a in answers]))
    return [aims.at_least(row, least), aims.at_least(seen, least)]


def _beside_plain(bench: StoreBench, name: str, unit: str, answers: dict[str, list[Answer]], scale: float) -> Row:
    """Atlas beside that plain side which did most; the others are told too."""
    plain = {
        side: Figure(unit, [answer["rate"] * scale for answer in found])
        for side, found in answers.items()
        if side.startswith("plain")
    }
    best = max(plain, key=lambda side: plain[side].median, default=None)
    row = row_of(bench.engine.name, name, unit, answers["Atlas"], answers[best] if best else [], scale=scale)
    if len(plain) > 1:
        row.more |= plain
    return row


SECTIONS: dict[str, Callable[[StoreBench], list[Row]]] = {
    "single": single,
    "batches": batches,
    "drain": drain,
}
