"""The section with many jobs behind: a store that is full of ready jobs, against the same store with few.

What is behind is ready and of lower priority, and of another type, for which the worker has no room. Last, a server
takes the store over that runs that type like any other, and drains jobs of it from before all the others, once.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.bench import row_of
from benchmarks.servers import SLOTS

from . import plan as aims
from .bench import BATCHES_IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.meter import Answer
    from benchmarks.over_stores import Sides
    from benchmarks.report import Row
    from benchmarks.servers import Server

    from .bench import StoreBench

_FOLLOWING = "benchmarks.stores.following"


class _Case(NamedTuple):
    name: str
    unit: str
    scale: int
    measure: Callable[[Server], Answer]


def behind(bench: StoreBench) -> list[Row]:
    """Single submits, batches, drains and the latency of jobs."""
    size, jobs = bench.plan.batch, bench.plan.queued
    cases = [
        _Case(f"SubmitJob, {bench.plan.in_flight} in flight", "/s", 1, bench.submits),
        _Case(f"SubmitJobs, {size} a call, {BATCHES_IN_FLIGHT} in flight", "jobs/s", size, bench.batches),
        _Case(f"drain of {jobs:,} no-op jobs", "jobs/s", 1, bench.drain),
        _Case("RunJob of a no-op job, 1 in flight: p50", "/s", 1, bench.run_jobs),
    ]
    url = bench.engine.new_url()
    with bench.atlas() as few, tempfile.TemporaryDirectory(prefix="atlas-bench-") as folder:
        gate = f"{folder}/open"
        with bench.atlas(url) as many:
            bench.fill_behind(many, bench.plan.behind)
            rows = [_by_few(bench, case, few, many) for case in cases]
            if not bench.engine.plain:
                return rows  # what is in memory cannot be taken over
            # More than there are slots, so that the next server has none free at once.
            bench.clients.call("hold", target=many.target, slots=2 * SLOTS, path=gate)
        with bench.atlas(url, _FOLLOWING) as many:
            case = _Case("  of the type that is behind", "jobs/s", 1, bench.drain)
            ours = partial(bench.drain, many, "behind", gate)
            rows.insert(3, _by_few(bench, case, few, many, ours=ours, rounds=1))
    return rows


def _by_few(
    bench: StoreBench,
    case: _Case,
    few: Server,
    many: Server,
    *,
    ours: Callable[[], Answer] | None = None,
    rounds: int | None = None,
) -> Row:
    sides: Sides = {"many behind": ours or partial(case.measure, many), "none behind": partial(case.measure, few)}
    answers = bench.rounds(case.name.strip(), sides, scale=case.scale, rounds=rounds)
    section = f"{bench.engine.name} with {bench.plan.behind:,} jobs behind; baseline: without"
    row = row_of(section, case.name, case.unit, answers["many behind"], answers["none behind"], scale=case.scale)
    if case.measure == bench.run_jobs:
        return aims.ratio_at_most(row.promote("p50"), 1 / aims.BY_FEW, "ms")
    return aims.ratio_at_least(row, aims.BY_FEW)
