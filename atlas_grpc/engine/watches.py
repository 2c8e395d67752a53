"""The watches themselves: where a watcher is, and what it is told next. Why they work like this is told in `hub`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from ..errors import JobNotFound, ResumeTokenExpired, ServerDraining, WatchTooSlow
from ..model import Job, LogLine, Progress, Record, Transition
from ..stores.base import Filter, Output
from .feed import JobsUpdate, started, update_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..stores.base import Store
    from .feed import Stretch
    from .hub import Hub

T = TypeVar("T")

_PAGE = 250
LOG_BATCH = 200
"""Log lines that are read at a time."""
LOG_CHARACTERS = 256 * 1024
"""Characters of log lines in one message."""
RETRY_AFTER = 1.0
_NO_OUTPUT = Output()
_SHARED = 16
"""Messages, and reads of log lines, that a topic keeps for others; most are at the same place."""


class Signal:
    """A flag that one task waits for. Setting it twice is the same as once."""

    __slots__ = ("_future", "_set")

    def __init__(self) -> None:
        self._set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Returns once the flag is set, and clears it."""
        if not self._set:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._set = False


class JobUpdate(Record, frozen=True):
    """What a watcher of one job is told next. Empty but for the position: a heartbeat."""

    job: Job | None
    transitions: tuple[Transition, ...]
    progress: Progress | None
    logs: tuple[LogLine, ...]
    dropped_logs: int
    version: int
    log: int
    latest: Progress | None
    """The progress to show in `job`, news or not."""
    final: bool
    since: int
    """The version that the watcher had before."""
    time: int
    """When `version` was made."""

    @property
    def place(self) -> tuple[int, int, int, int, int, int, bool]:
        """What distinguishes an update from others of the same job, record and output."""
        news = 0 if self.progress is None else self.progress.time
        return self.since, self.version, self.log, len(self.logs), self.dropped_logs, news, self.job is None

    @property
    def heartbeat(self) -> bool:
        return self.job is None and self.progress is None and not self.logs and not self.dropped_logs


class Topic:
    """A watched job: its latest record and output, and who watches."""

    __slots__ = ("_encoded", "_lines", "job", "output", "watches")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.output = _NO_OUTPUT
        self.watches: set[TopicWatch] = set()
        self._encoded: dict[object, bytes] = {}
        self._lines: dict[int, asyncio.Task[list[LogLine]]] = {}

    def take(self, job: Job | None) -> None:
        """There is another record."""
        self.job = job
        self._encoded.clear()

    def take_output(self, output: Output) -> None:
        """There may be other output."""
        self.output = output
        self._encoded.clear()
        self._lines.clear()

    def encoded(self, place: object) -> bytes | None:
        """The message to those who are at that place, if somebody has encoded it."""
        return self._encoded.get(place)

    def keep_encoded(self, place: object, message: bytes) -> None:
        """Keeps a message for others, for as long as nothing changes."""
        if len(self._encoded) >= _SHARED:
            self._encoded.clear()
        self._encoded[place] = message

    async def lines(self, store: Store, job_id: str, start: int) -> list[LogLine]:
        """Log lines from an offset on, read once for those who have come as far."""
        if len(self.watches) == 1:
            return await store.logs(job_id, start, LOG_BATCH)
        if start not in self._lines:
            if len(self._lines) >= _SHARED:
                self._lines.clear()
            self._lines[start] = started(store.logs(job_id, start, LOG_BATCH))
        try:
            return await asyncio.shield(self._lines[start])
        except Exception:
            self._lines.pop(start, None)
            raise

    def wake(self) -> None:
        for watch in self.watches:
            watch.signal.set()


class Watch:
    """What all kinds have in common: a signal, a heartbeat, an end."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.signal = Signal()
        self.spoke = hub.clock.monotonic()
        self.beat_due = False

    async def _next(self, news: Callable[[], Awaitable[T | None]], beat: Callable[[], T]) -> T:
        """What there is to tell once there is something, or what shows that the watch lives."""
        while True:
            update = await news()
            if update is not None:
                return update
            await self._wait()
            if self._take_beat():
                return await news() or beat()

    async def _wait(self) -> None:
        """Returns when there may be news or a heartbeat is due. Raises ServerDraining at the end of the server."""
        if self.hub.draining:
            msg = "the server is about to stop; resume with the last token"
            raise ServerDraining(msg, retry_after=RETRY_AFTER)
        await self.signal.wait()

    def _take_beat(self) -> bool:
        due, self.beat_due = self.beat_due, False
        return due


class TopicWatch(Watch):
    """What both kinds of watches of one job have in common. Close it."""

    def __init__(self, hub: Hub, job_id: str, topic: Topic) -> None:
        super().__init__(hub)
        self.job_id = job_id
        self.topic = topic

    async def _lines(self, start: int, output: Output, *, terminal: bool) -> tuple[tuple[LogLine, ...], int]:
        """Log lines from an offset on, and how many before the first of them are lost."""
        if output.log_end <= start:
            return (), 0
        lines = await self.topic.lines(self.hub.store, self.job_id, start)
        if not lines:
            return (), output.log_end - start if terminal else 0
        return _fitting(lines), max(0, lines[0].offset - start)

    def close(self) -> None:
        """Ends the watch; harmless to repeat."""
        self.hub.leave(self)


class JobWatch(TopicWatch):
    """Follows one job from a version and a log offset on. Made by `Hub.watch_job`."""

    def __init__(self, hub: Hub, job_id: str, topic: Topic, *, version: int, time: int, log: int | None) -> None:
        super().__init__(hub, job_id, topic)
        self._version = version
        self._time = time
        self._log = log
        self._progress: Progress | None = None
        self._first = True

    @property
    def is_over(self) -> bool:
        """Whether the job is terminal, so that the next message may be the last."""
        return self.topic.job is not None and self.topic.job.state.terminal

    async def next(self) -> JobUpdate:
        """The next message. Raises JobNotFound when the job was deleted before its end was told."""
        return await self._next(self._news, lambda: self._update(None, (), None, (), 0, final=False))

    async def _news(self) -> JobUpdate | None:
        job = self.topic.job
        if job is None:
            raise JobNotFound.of(self.job_id)
        steps = transitions_after(job, self._version)
        if self._version and steps and steps[0].version > self._version + 1:
            raise expired(job)
        output = self.topic.output
        progress = output.progress if output.progress != self._progress else None
        ended = job.state.terminal
        logs, dropped = ((), 0) if self._log is None else await self._lines(self._log, output, terminal=ended)
        if ended and self._log is not None and self._log + dropped + len(logs) < output.log_end:
            # The end is told last, after all log lines.
            return self._update(None, (), None, logs, dropped, final=False)
        if not (steps or progress or logs or dropped or self._first or ended):
            return None
        whole = bool(steps) or self._first or ended
        self._first = False
        return self._update(job if whole else None, steps, progress, logs, dropped, final=ended)

    def _update(
        self,
        job: Job | None,
        steps: tuple[Transition, ...],
        progress: Progress | None,
        logs: tuple[LogLine, ...],
        dropped: int,
        *,
        final: bool,
    ) -> JobUpdate:
        since = self._version
        if steps:
            self._version, self._time = steps[-1].version, steps[-1].time
        if progress is not None:
            self._progress = progress
        if self._log is not None:
            self._log += dropped + len(logs)
        self.spoke = self.hub.clock.monotonic()
        latest = self.topic.output.progress
        place = self._version, self._log or 0
        return JobUpdate(job, steps, progress, logs, dropped, *place, latest, final, since, self._time)


class JobsWatch(Watch):
    """Follows the jobs of a filter. Made by `Hub.watch_jobs`; close it."""

    def __init__(self, hub: Hub, where: Filter, cursor: int, *, snapshot: bool) -> None:
        super().__init__(hub)
        self._where = where
        self._cursor = cursor
        self._snapshot = snapshot
        self._synced = False
        self._after: str | None = None
        self._since = hub.store.now()
        self._seen: dict[str, int] = {}
        """What the snapshot held, which the feed, from before it, is going to tell again."""
        self._open_ids: set[str] | None = set(where.ids) if where.ids else None
        """Those of the jobs that were asked for by id that may still change."""
        self._key = b"" if where.ids else where.key()

    async def next(self) -> JobsUpdate:
        """The next message. Raises WatchTooSlow when the feed no longer reaches back to where the reader is."""
        if not self._synced:
            return await self._next_page() if self._snapshot else await self._skip_snapshot()
        while True:
            update = await self._news()
            if update is not None:
                return update
            await self._wait()
            if self._take_beat():
                self.spoke = self.hub.clock.monotonic()
                return await self._news() or JobsUpdate((), (), (), False, self._cursor, self._cursor, heartbeat=True)

    async def _next_page(self) -> JobsUpdate:
        store = self.hub.store
        everything = self._where if self._open_ids is None else Filter(self._where.namespace, self._where.ids)
        page = await store.find(everything, self._after, _PAGE)
        for job in page.jobs:
            self._settle(job.spec.id, job)
            if job.update_time >= self._since:
                self._seen[job.spec.id] = job.version
        jobs = [job for job in page.jobs if self._where.matches(job.spec, job.state)]
        self._after = page.after
        if page.after is not None:
            return await update_of(store, jobs, (), None, None)
        self._synced = True
        deleted = await self._missing()
        return await update_of(store, jobs, deleted, None, self._cursor, synced=True, final=self._is_over())

    async def _skip_snapshot(self) -> JobsUpdate:
        self._synced = True
        if self._open_ids is not None:
            names = sorted(self._open_ids)
            for job_id, job in zip(names, await self.hub.store.get(names), strict=True):
                self._settle(job_id, job if job is not None and job.spec.namespace == self._where.namespace else None)
        # What a resumed reader has not seen yet must still be told before the end.
        return JobsUpdate((), (), (), True, self._cursor, self._cursor)

    async def _missing(self) -> tuple[str, ...]:
        if not self._open_ids:
            return ()
        names = sorted(self._open_ids)
        found = await self.hub.store.get(names)
        gone = tuple(
            n for n, job in zip(names, found, strict=True) if job is None or job.spec.namespace != self._where.namespace
        )
        self._open_ids.difference_update(gone)
        return gone

    async def _news(self) -> JobsUpdate | None:
        while True:
            try:
                stretch = await self.hub.feed.after(self._cursor)
            except ResumeTokenExpired:
                msg = "the reader fell behind the changes that are kept"
                raise WatchTooSlow(msg, retry_after=RETRY_AFTER) from None
            self._cursor = stretch.end
            alone = self._seen or self._open_ids is not None
            update = await (self._told_alone(stretch) if alone else stretch.told(self._where, self._key))
            if update is not None:
                self.spoke = self.hub.clock.monotonic()
                return update
            if stretch.end == stretch.since:
                return None
            await asyncio.sleep(0)

    async def _told_alone(self, stretch: Stretch) -> JobsUpdate | None:
        """What this watch, and no other, is told of a stretch."""
        store = self.hub.store
        for change in stretch.of(self._where):
            self._settle(change.spec.id, change.job)
        jobs, deleted = stretch.matching(self._where, self._seen)
        over = False
        if self._seen or self._is_over():
            caught_up = stretch.end >= await store.head()
            over = caught_up and self._is_over()
            if caught_up:
                self._seen.clear()
        if not (jobs or deleted or over):
            return None
        return await update_of(store, jobs, deleted, stretch.since, stretch.end, final=over)

    def _settle(self, job_id: str, job: Job | None) -> None:
        if self._open_ids is not None and (job is None or job.state.terminal):
            self._open_ids.discard(job_id)

    def _is_over(self) -> bool:
        return self._open_ids is not None and not self._open_ids

    def close(self) -> None:
        """Ends the watch; harmless to repeat."""
        self.hub.leave(self)


def transitions_after(job: Job, version: int) -> tuple[Transition, ...]:
    """The kept transitions of a job after a version."""
    history = job.history
    missing = job.version - version
    if missing <= 0:
        return ()
    return history[-missing:] if missing < len(history) else history


def check_resumable(job: Job, version: int, time: int) -> None:
    """Raises ResumeTokenExpired unless the job once was at that version, made at that time (0: at any), and all that
    followed is kept.
    """
    history = job.history
    at = version - history[0].version
    if version > job.version or at < -1 or (at >= 0 and time not in (0, history[at].time)):
        raise expired(job)


def expired(job: Job) -> ResumeTokenExpired:
    msg = "the history after this token is no longer kept; watch again without it"
    return ResumeTokenExpired(msg, metadata={"job_id": job.spec.id})


def _fitting(lines: Sequence[LogLine]) -> tuple[LogLine, ...]:
    """The first lines, so many that a message with them, a job and its result stays below what clients take."""
    size = 0
    for at, line in enumerate(lines):
        size += len(line.message)
        if at and size > LOG_CHARACTERS:
            return tuple(lines[:at])
    return tuple(lines)
