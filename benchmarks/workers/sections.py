"""The measurements, one function for each section. The baseline is the worker in the server's own process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.bench import row_of
from benchmarks.report import Figure, Row, percentile
from benchmarks.servers import Server
from benchmarks.stores import plan as aims

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.meter import Answer

    from .bench import WorkerBench

_DRAINED = {"postgresql": 12_000}
"""Jobs a second."""
_ANSWERED = {"memory": 4.0, "postgresql": 8.0}
"""Milliseconds from a submit to its result, in the median."""


def drain(bench: WorkerBench) -> list[Row]:
    """No-op jobs through one worker over the stream, from a full queue."""
    with bench.inside() as inside, bench.apart() as apart:
        answers = bench.rounds("drain", {"apart": apart.drain, "inside": inside.drain})
    name = f"drain of {bench.plan.queued:,} no-op jobs, over the stream"
    row = row_of(bench.engine.name, name, "jobs/s", answers["apart"], answers["inside"])
    row.more["jobs a claim"] = Figure("", [answer["claimed"] for answer in answers["apart"]])
    return [aims.at_least(row, _DRAINED.get(bench.engine.name))]


def unary(bench: WorkerBench) -> list[Row]:
    """The same through a worker that uses LeaseJobs and FinishJobs."""
    with bench.inside() as inside, bench.apart(unary=True) as apart:
        answers = bench.rounds("unary", {"apart": apart.drain, "inside": inside.drain})
    name = f"drain of {bench.plan.queued:,} no-op jobs, by unary leases"
    return [row_of(bench.engine.name, name, "jobs/s", answers["apart"], answers["inside"])]


def sleepers(bench: WorkerBench) -> list[Row]:
    """Jobs that sleep 0.1 s, many at a time on one worker."""
    slots = bench.plan.at_once
    with bench.apart(slots=slots) as apart:
        answers = bench.rounds("sleepers", {"apart": lambda: apart.drain("nap")})
    row = row_of(bench.engine.name, f"jobs that sleep 0.1 s, {slots:,} at a time", "jobs/s", answers["apart"], [])
    return [aims.at_least(row, 6_000)]


def latency(bench: WorkerBench) -> list[Row]:
    """From a submit to the start of its handler and to its result, at low load."""
    with bench.inside() as inside, bench.apart() as apart:
        answers = bench.rounds("latency", {"apart": apart.run_jobs, "inside": inside.run_jobs})
    result = row_of(bench.engine.name, "submit to result, p50", "/s", answers["apart"], answers["inside"])
    result = aims.at_most(result.promote("p50"), _ANSWERED.get(bench.engine.name), "ms")
    starts = Row(
        bench.engine.name,
        "submit to the handler's start, p50",
        _started(answers["apart"], 0.5),
        _started(answers["inside"], 0.5),
        more={"p99": _started(answers["apart"], 0.99)},
        baseline_more={"p99": _started(answers["inside"], 0.99)},
    )
    return [result, starts.compare()]


def _started(answers: list[Answer], share: float) -> Figure:
    return Figure("ms", [percentile(answer["starts"], share) / 1000 for answer in answers])


def idle(bench: WorkerBench) -> list[Row]:
    """What workers without work cost the server: memory and CPU time of each, with a connection of its own."""
    rows = []
    for count in bench.plan.idle:
        with bench.server("--no-worker") as atlas:
            time.sleep(bench.plan.idle_seconds / 10)
            alone, empty = _load(atlas, bench.plan.idle_seconds), atlas.rss()
            with Crowd(atlas.target, count, bench.cpus):
                busy = _load(atlas, bench.plan.idle_seconds)
                memory = (atlas.rss() - empty) / 1024 / count
        bench.tell(f"idle: {count} workers: {memory:.0f} kB each")
        share = 100 * (busy - alone) / count
        row = Row(bench.engine.name, f"{count:,} idle workers: memory of each", Figure("kB", [memory]))
        rows.append(row.aim("≤ 100 kB", memory <= 100))
        row = Row(bench.engine.name, f"{count:,} idle workers: CPU of each", Figure("% of a core", [share]))
        rows.append(row.aim("≤ 0.01 %", share <= 0.01))
    return rows


def company(bench: WorkerBench) -> list[Row]:
    """From a submit to its result while many other workers wait for jobs, beside the same without them."""
    count = bench.plan.idle[-1]
    rows = []
    for apart, more in ((False, ""), (True, " of as many queues")):
        with bench.apart() as alone, bench.apart() as among, Crowd(among.target, count, bench.cpus, apart=apart):
            answers = bench.rounds("company", {"among": among.run_jobs, "alone": alone.run_jobs})
        name = f"submit to result, p50, beside {count:,} idle workers{more}"
        rows.append(row_of(bench.engine.name, name, "/s", answers["among"], answers["alone"]).promote("p50"))
    return rows


def _load(server: Server, seconds: float) -> float:
    before = machine.cpu_seconds(server.pid)
    time.sleep(seconds)
    return (machine.cpu_seconds(server.pid) - before) / seconds


class Crowd(Server):
    """A process with many workers; entered when all of them are connected."""

    def __init__(self, target: str, count: int, cpus: list[int], *, apart: bool = False) -> None:
        kind = "apart" if apart else "alike"
        super().__init__("crowd", ["-m", "benchmarks.workers.crowd", target, str(count), kind], cpus, piped=True)
        if not self.process.stdout or not self.process.stdout.readline():
            self.process.wait()
            raise self.failed()


SECTIONS: dict[str, Callable[[WorkerBench], list[Row]]] = {
    "drain": drain,
    "unary": unary,
    "sleepers": sleepers,
    "latency": latency,
    "idle": idle,
    "company": company,
}
