"""The measurements of one store, one function for each section.

A figure stands beside what the engine does by plain statements, in transactions of the same size and in the same run;
of one connection and of as many as the store has, whichever did more.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import row_of
from benchmarks.report import Figure, Row

from . import plan as aims
from .behind import behind
from .bench import BATCHES_IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.meter import Answer
    from benchmarks.over_stores import Sides

    from .bench import StoreBench


def single(bench: StoreBench) -> list[Row]:
    """SubmitJob, one job a call, against the memory store and against plain inserts of one row."""
    engine = bench.engine
    name = f"SubmitJob, {bench.plan.in_flight} in flight"
    with bench.atlas() as atlas:
        sides: Sides = {"Atlas": partial(bench.submits, atlas)}
        if not engine.plain:
            return [row_of(engine.name, name, "/s", bench.rounds("single", sides)["Atlas"], [])]
        with bench.atlas("memory://") as memory:
            sides |= {"memory store": partial(bench.submits, memory)}
            sides |= bench.plain_by_lanes(partial(bench.plain_enqueue, 1))
            answers = bench.rounds("single", sides)
    row = bench.beside_plain(f"{name}; baseline: single inserts", "/s", answers)
    by_memory = row_of(engine.name, f"{name}; baseline: memory store", "/s", answers["Atlas"], answers["memory store"])
    return [row, aims.ratio_at_least(by_memory, aims.SINGLE_BY_MEMORY.get(engine.name))]


def batches(bench: StoreBench) -> list[Row]:
    """SubmitJobs against inserts of as many rows."""
    size = bench.plan.batch
    with bench.atlas() as atlas:
        sides: Sides = {"Atlas": partial(bench.batches, atlas)}
        sides |= bench.plain_by_lanes(partial(bench.plain_enqueue, size))
        answers = bench.rounds("batches", sides, scale=size)
    name = f"SubmitJobs, {size} a call, {BATCHES_IN_FLIGHT} in flight"
    row = bench.beside_plain(name, "jobs/s", answers, size)
    return [aims.at_least(row, aims.ENQUEUED.get(bench.engine.name))]


def drain(bench: StoreBench) -> list[Row]:
    """No-op jobs through the worker in the server's process, from a full queue, against plain claims and finishes."""
    with bench.atlas() as atlas:
        sides: Sides = {"Atlas": partial(bench.drain, atlas)}
        sides |= bench.plain_by_lanes(bench.plain_drain)
        answers = bench.rounds("drain", sides)
    row = bench.beside_plain(f"drain of {bench.plan.queued:,} no-op jobs", "jobs/s", answers)
    return _drained(bench, row, answers["Atlas"])


def _drained(bench: StoreBench, row: Row, answers: list[Answer]) -> list[Row]:
    """The row, with what else a drain tells, and one by the client's clock."""
    jobs, least = bench.plan.queued, aims.DRAINED.get(bench.engine.name)
    row.more["jobs a claim"] = Figure("", [answer["claimed"] for answer in answers])
    seen = Row(row.section, "  the same as a client sees it", Figure("jobs/s", [jobs / a["known"] for a in answers]))
    return [aims.at_least(row, least), aims.at_least(seen, least)]


def latency(bench: StoreBench) -> list[Row]:
    """From a submit to its result at low load, against a job that is stored, claimed and finished by hand."""
    with bench.atlas() as atlas:
        sides: Sides = {"Atlas": partial(bench.run_jobs, atlas)}
        if bench.engine.plain:
            sides["plain"] = bench.plain_latency
        answers = bench.rounds("latency", sides)
    row = bench.beside_plain("RunJob of a no-op job, 1 in flight: p50", "/s", answers).promote("p50")
    return [aims.at_most(row, aims.ANSWERED.get(bench.engine.name), "ms")]


SECTIONS: dict[str, Callable[[StoreBench], list[Row]]] = {
    "single": single,
    "batches": batches,
    "drain": drain,
    "latency": latency,
    "behind": behind,
}
USUAL = tuple(name for name in SECTIONS if name != "behind")
"""Those of a run that is not told otherwise: filling a store takes long."""
