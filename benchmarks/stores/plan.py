"""How much is measured, and which aims the figures are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report import Row


@dataclass(frozen=True)
class Plan:
    """`seconds` and `warmup` are of one timed round; `queued` jobs are drained, with `behind` jobs in the way."""

    seconds: float
    warmup: float
    rounds: int
    in_flight: int
    batch: int
    queued: int
    behind: int


QUICK = Plan(0.4, 0.1, 1, 8, 50, 500, 2_000)
NORMAL = Plan(3.0, 0.5, 3, 50, 500, 50_000, 1_000_000)

DRAINED = {"sqlite": 20_000, "postgresql": 25_000, "valkey": 20_000, "redis": 20_000}
"""Jobs a second, by the server's stamps and by a client's clock."""
ENQUEUED = {"postgresql": 30_000}
"""Jobs a second through SubmitJobs."""
SINGLE_BY_MEMORY = {"postgresql": 0.75}
"""Single submits a second, by those of the memory store."""
ANSWERED = {"postgresql": 5.0}
"""Milliseconds from a submit to its result, in the median."""
BY_FEW = 0.8
"""What a store with many jobs behind does, by what it does without."""


def at_least(row: Row, least: float | None, unit: str = "jobs/s") -> Row:
    """Holds the row's figure against an aim, if there is one. What was not measured misses it."""
    if least is None:
        return row
    return row.aim(f"≥ {least:,} {unit}", _measured(row, unit) >= least)


def at_most(row: Row, most: float | None, unit: str) -> Row:
    """The same from above."""
    if most is None:
        return row
    return row.aim(f"≤ {most:g} {unit}", 0 < _measured(row, unit) <= most)


def ratio_at_least(row: Row, least: float | None) -> Row:
    """Holds the row's ratio against an aim, if there is one."""
    return row if least is None else row.aim(f"≥ {least:g}", (row.ratio or 0) >= least)


def ratio_at_most(row: Row, most: float, unit: str) -> Row:
    """The same from above, of figures in that unit."""
    return row.aim(f"≤ {most:g}", _measured(row, unit) > 0 and row.ratio is not None and row.ratio <= most)


def _measured(row: Row, unit: str) -> float:
    """The row's figure in that unit, or 0: a round without a single answer has a rate, but no latency."""
    return row.atlas.median if row.atlas is not None and row.atlas.unit == unit else 0.0
