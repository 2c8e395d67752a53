"""Progress and log lines of running attempts, apart from the jobs: a report never rewrites a job's row.

The latest progress is one row of a job, updated in place. Of a log the last lines are kept. What is beyond their
number is no longer shown at once, and deleted when it has become a quarter of it: a talkative job then deletes its
old lines in batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...model import LogLine, Progress, Severity
from ..base import Output
from . import rows
from .columns import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Update
    from .database import Database

_BATCH = 100
"""Attempts of one statement."""
_LINE_OVERHEAD = 100
"""Bytes that a kept line takes beside its text."""
_NOTHING = Output()


class _Said(NamedTuple):
    """What the updates of one attempt say together."""

    progress: Progress | None
    lines: list[LogLine]


class Outputs:
    """Output tables."""

    def __init__(self, database: Database, max_lines: int, max_bytes: int) -> None:
        self._database = database
        self._max_lines = max_lines
        self._max_bytes = max_bytes

    async def report(self, updates: Sequence[Update], now: int) -> list[bool]:
        said: dict[tuple[str, int], _Said] = {}
        for update in updates:
            if not rows.is_id(update.job_id):
                continue
            key = (update.job_id, update.fence)
            before = said.get(key, _Said(None, []))
            said[key] = _Said(update.progress or before.progress, [*before.lines, *update.logs])
        # In the order of the ids, as always where several rows are locked.
        keys = sorted(said)
        alive: set[tuple[str, int]] = set()
        for start in range(0, len(keys), _BATCH):
            alive |= await self._report({key: said[key] for key in keys[start : start + _BATCH]}, now)
        return [(update.job_id, update.fence) in alive for update in updates]

    async def _report(self, said: dict[tuple[str, int], _Said], now: int) -> set[tuple[str, int]]:
        keys = list(said)
        shown = [said[key].progress for key in keys]
        lines = [line for nth, key in enumerate(keys, start=1) for line in self._numbered(nth, said[key].lines)]
        found = await self._database.fetch(
            "report",
            [job_id for job_id, _ in keys],
            [fence for _, fence in keys],
            [progress and progress.current for progress in shown],
            [progress and progress.total for progress in shown],
            [progress and now for progress in shown],
            [progress and text(progress.message) for progress in shown],
            [len(said[key].lines) for key in keys],
            [sum(map(_taken, said[key].lines)) for key in keys],
            now,
            *([line[at] for line in lines] for at in range(5)),
        )
        bound = self._max_lines + self._max_lines // 4
        long = [keys[row["nth"] - 1][0] for row in found if row["lines"] > bound or row["bytes"] > self._max_bytes]
        if long:
            await self._database.fetch("trim_logs", long, self._max_lines, self._max_bytes)
        return {keys[row["nth"] - 1] for row in found}

    def _numbered(self, nth: int, lines: list[LogLine]) -> list[tuple[int, int, int, int, str]]:
        """Lines of the nth attempt that may be kept, with how many lines and bytes there are from each to the end."""
        numbered = []
        size = 0
        for back, line in enumerate(reversed(lines[-self._max_lines :] if self._max_lines else []), start=1):
            size += _taken(line)
            numbered.append((nth, back, size, int(line.severity), text(line.message)))
        return numbered[::-1]

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        known = rows.known_ids(ids)
        found: dict[str, Output] = {}
        if known:
            for row in await self._database.fetch("outputs", known):
                time = row["progress_time"]
                progress = (
                    None
                    if time is None
                    else Progress(row["progress"], row["progress_total"], row["progress_message"], time)
                )
                end = row["log_end"]
                found[row["id"]] = Output(progress, max(row["log_start"], end - self._max_lines), end)
        return [found.get(job_id, _NOTHING) for job_id in ids]

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        if not rows.is_id(job_id):
            return []
        found = await self._database.fetch("logs", job_id, start, limit, self._max_lines)
        return [
            LogLine(Severity(severity), message, attempt, number, time)
            for severity, message, attempt, number, time in found
        ]


def _taken(line: LogLine) -> int:
    return _LINE_OVERHEAD + len(line.message.encode())
