"""A job's log by itself: a page of it, or followed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..errors import JobNotFound
from ..model import LogLine, Record
from .watches import LOG_BATCH, LOG_CHARACTERS, TopicWatch

if TYPE_CHECKING:
    from ..model import Job
    from ..stores.base import Output, Store
    from .hub import Hub
    from .watches import Topic

_MOST_READ = 10_000
"""Lines that are looked at for one page, which may want few of them."""


class Wanted(NamedTuple):
    """Which lines of a log: from an offset on, at most the last so many (None: all), of one attempt (0: of all)."""

    start: int = 0
    tail: int | None = None
    attempt: int = 0

    def takes(self, line: LogLine) -> bool:
        return not self.attempt or line.attempt == self.attempt


class LogPage(Record, frozen=True):
    """Some lines, how many before or between them are lost, where to go on, and where the log ends now."""

    lines: tuple[LogLine, ...]
    dropped: int
    next: int
    end: int
    complete: bool
    """Whether all was read and no more will come."""


class LogUpdate(Record, frozen=True):
    """What a follower of a log is told next."""

    lines: tuple[LogLine, ...]
    dropped: int
    next: int
    """The offset to go on from."""
    final: bool

    @property
    def heartbeat(self) -> bool:
        return not self.lines and not self.dropped


async def read_page(store: Store, job: Job, wanted: Wanted, limit: int) -> LogPage:
    """Up to `limit` lines. The job must have been read before: its end is then no older than its log."""
    job_id = job.spec.id
    (output,) = await store.outputs([job_id])
    at = await begin(store, job_id, output, wanted)
    lines: list[LogLine] = []
    size = dropped = looked = 0
    end = output.log_end
    full = False
    while not full and at < output.log_end and looked < _MOST_READ:
        batch = await store.logs(job_id, at, LOG_BATCH)
        after = batch[0].offset if batch else output.log_end
        dropped, at = dropped + max(0, after - at), max(after, at)
        looked += len(batch)
        end = max(end, after + len(batch))
        for line in batch:
            if wanted.takes(line):
                size += len(line.message)
                full = len(lines) == limit or (size > LOG_CHARACTERS and bool(lines))
                if full:
                    break
                lines.append(line)
            at = line.offset + 1
    return LogPage(tuple(lines), dropped, at, end, job.state.terminal and at >= end)


async def begin(store: Store, job_id: str, output: Output, wanted: Wanted) -> int:
    """The offset of the first line that is wanted."""
    if wanted.tail is None:
        return wanted.start
    if not wanted.attempt:
        return max(wanted.start, output.log_start, output.log_end - wanted.tail)
    last: deque[int] = deque(maxlen=wanted.tail)
    at = max(wanted.start, output.log_start)
    while batch := await store.logs(job_id, at, LOG_BATCH):
        last.extend(line.offset for line in batch if wanted.takes(line))
        at = batch[-1].offset + 1
    return last[0] if last else max(at, output.log_end)


class LogWatch(TopicWatch):
    """Follows the log of one job from an offset on. Made by `Hub.watch_log`."""

    def __init__(self, hub: Hub, job_id: str, topic: Topic, wanted: Wanted) -> None:
        super().__init__(hub, job_id, topic)
        self._wanted = wanted
        self._at = wanted.start
        self._first = True

    async def begin(self) -> None:
        """Goes to the first line that is wanted."""
        self._at = await begin(self.hub.store, self.job_id, self.topic.output, self._wanted)

    async def next(self) -> LogUpdate:
        """The next message. Raises JobNotFound when the job was deleted before its end was told."""
        return await self._next(self._news, lambda: self._update((), 0, final=False))

    async def _news(self) -> LogUpdate | None:
        while True:
            job, output = self.topic.job, self.topic.output
            if job is None:
                raise JobNotFound.of(self.job_id)
            lines, dropped = await self._lines(self._at, output, terminal=job.state.terminal)
            self._at += dropped + len(lines)
            found = tuple(line for line in lines if self._wanted.takes(line))
            ended = job.state.terminal and self._at >= output.log_end
            if found or dropped or ended or self._first:
                return self._update(found, dropped, final=ended)
            if not lines:
                return None

    def _update(self, lines: tuple[LogLine, ...], dropped: int, *, final: bool) -> LogUpdate:
        self._first = False
        self.spoke = self.hub.clock.monotonic()
        return LogUpdate(lines, dropped, self._at, final)
