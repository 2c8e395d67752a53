"""The way back to the source: outcomes in natural batches, progress and logs coalesced.

While one `finish` runs, the next batch gathers; nothing waits for a timer. What a handler logged arrives before its
outcome, because the outcome ends the lease.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ..errors import Code, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, RequestTooLarge
from ..model import Report, Succeeded, Update
from .backoff import Backoff
from .execution import log
from .failures import refused
from .results import RESULT_INVALID, RESULT_TOO_LARGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from ..clock import Clock
    from ..errors import AtlasError
    from ..model import Failed, Outcome
    from .execution import Execution
    from .output import Output
    from .source import WorkSource

    Taken = tuple[Output | None, Update]

T = TypeVar("T")

UPDATE_INTERVAL = 0.05
"""Seconds between two updates, each of all handlers that have news."""
UPDATE_TRIES = 3
"""Progress and logs are given up after so many tries; outcomes never are. The job's log says what it lacks."""

OUTCOME_REFUSED = "OUTCOME_REFUSED"
_PERMANENT = (InvalidArgument, FailedPrecondition, NotFound, OutOfRange, RequestTooLarge)


class Reporter:
    """Hands in what executions say and how they ended. `lost` is called for those whose lease turned out to be gone,
    `relieved` after each batch of outcomes."""

    def __init__(
        self,
        source: WorkSource,
        clock: Clock,
        rng: Random,
        *,
        lost: Callable[[str, int], None],
        relieved: Callable[[], None],
    ) -> None:
        self._source = source
        self._clock = clock
        self._rng = rng
        self._lost = lost
        self._relieved = relieved
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._reports: list[Report] = []
        self._ended: list[Execution] = []
        self._news: list[Execution] = []
        self._has_reports = asyncio.Event()
        self._has_news = asyncio.Event()
        self._updating = asyncio.Lock()
        self._sending = 0
        self._flushed = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Outcomes that were not handed in yet."""
        return len(self._reports) + self._sending

    def report(self, job_id: str, fence: int, outcome: Outcome, execution: Execution | None = None) -> None:
        """Takes an outcome; `execution` is given when it may have said something."""
        if not self._reports:
            self._has_reports.set()
        self._reports.append(Report(job_id, fence, outcome))
        if execution is not None:
            self._ended.append(execution)

    def touch(self, execution: Execution) -> None:
        """The output of an execution has news. May be called from any thread."""
        if threading.get_ident() == self._thread:
            self._touched(execution)
        else:
            with suppress(RuntimeError):  # the loop was closed while the handler ran on
                self._loop.call_soon_threadsafe(self._touched, execution)

    async def flushed(self) -> None:
        """Returns when all outcomes were handed in."""
        while self.backlog:
            self._flushed.clear()
            await self._flushed.wait()

    async def finish_loop(self) -> None:
        """Hands in outcomes, for ever."""
        while True:
            await self._has_reports.wait()
            self._has_reports.clear()
            batch, self._reports = self._reports, []
            self._sending = len(batch)
            ended, self._ended = self._ended, []
            while ended and await self._send_output(ended):
                pass
            await self._hand_in(batch)
            self._sending = 0
            self._flushed.set()
            self._relieved()

    async def update_loop(self) -> None:
        """Sends progress and logs, for ever."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            news, self._news = self._news, []
            await self._send_output(news)
            await self._clock.sleep(UPDATE_INTERVAL)

    def _touched(self, execution: Execution) -> None:
        self._news.append(execution)
        self._has_news.set()

    async def _hand_in(self, batch: list[Report], *, stand_in: bool = False) -> None:
        backoff = Backoff(self._clock, self._rng)
        while True:
            try:
                accepted = await self._source.finish(batch)
            except _PERMANENT as exc:
                await self._hand_in_otherwise(batch, exc, stand_in=stand_in)
                return
            except Exception as exc:
                log.warning("outcomes cannot be handed in yet: %s", type(exc).__name__)
                await backoff.pause()
                continue
            late = accepted.count(False)
            if late:
                log.info("outcomes came too late: %d of %d", late, len(batch))
            return

    async def _hand_in_otherwise(self, batch: list[Report], exc: AtlasError, *, stand_in: bool) -> None:
        """One bad report must not hold up the others, and a job whose outcome is refused must still end: with a failure
        that stands in for it.
        """
        if len(batch) > 1:
            for half in _halves(batch):
                await self._hand_in(half)
            return
        report = batch[0]
        log.error("the outcome of job %s was refused: %s", report.job_id, exc.message)
        if not stand_in:
            failed = _refused(report.outcome, exc)
            await self._hand_in([Report(report.job_id, report.fence, failed)], stand_in=True)

    async def _send_output(self, executions: Iterable[Execution]) -> bool:
        """Sends what they have to say, or a good part of it; False when they have nothing."""
        async with self._updating:
            taken = [(one.output, update) for one in executions if (update := _update(one)) is not None]
            if taken:
                await self._update(taken)
            return bool(taken)

    async def _update(self, taken: list[Taken]) -> None:
        """Sends what was taken from outputs, or gives it up."""
        backoff = Backoff(self._clock, self._rng)
        updates = [update for _, update in taken]
        while backoff.failures < UPDATE_TRIES:
            try:
                held = await self._source.update(updates)
            except _PERMANENT as exc:
                if len(taken) > 1:
                    for half in _halves(taken):
                        await self._update(half)
                    return
                log.warning("progress and logs of job %s were refused: %s", updates[0].job_id, exc.message)
                break
            except Exception as exc:
                log.warning("progress and logs cannot be sent: %s", type(exc).__name__)
                await backoff.pause()
                continue
            for update, is_held in zip(updates, held, strict=True):
                if not is_held:
                    self._lost(update.job_id, update.fence)
            return
        log.warning("log lines are given up: %d", sum(len(update.logs) for update in updates))
        for output, update in taken:
            if output is not None:
                output.give_up(len(update.logs))


def _halves(batch: list[T]) -> tuple[list[T], list[T]]:
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]


def _refused(outcome: Outcome, exc: AtlasError) -> Failed:
    if not isinstance(outcome, Succeeded):
        reason, what = OUTCOME_REFUSED, "how the attempt ended"
    else:
        reason, what = RESULT_TOO_LARGE if isinstance(exc, RequestTooLarge) else RESULT_INVALID, "the result"
    return refused(Code.INTERNAL, reason, f"{what} was refused: {exc.message}")


def _update(execution: Execution) -> Update | None:
    if execution.output is None:
        return None
    progress, logs = execution.output.take()
    if progress is None and not logs:
        return None
    return Update(execution.assignment.job_id, execution.assignment.fence, progress, logs)
