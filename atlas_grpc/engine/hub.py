"""The watch hub: from the store's change feed to any number of watchers, exactly and in bounded memory.

Why it looks like this. A watcher must see every transition in order, without gap or repeat, on any server, however
late it comes, however often it is cut and however slowly it reads. Queues per watcher either grow without bound or
drop. So no watcher has a queue. A job's record carries its own history, and the feed is kept by the store; a watcher
only remembers *where it is* (a version, a log offset, a feed cursor) and, when it is ready for more, reads everything
after that place in one go. Being slow costs nothing and makes messages larger, not more; resuming is the same
operation as going on; 1,000 watchers of one job share one record and, at the wall, one encoded message.

- `JobWatch` follows one job. The hub keeps a topic per watched job with its latest record and output; one pump reads
  the feed (only while there are topics) and hands records to topics, which wake their watchers.
- `JobsWatch` follows a filter. It pulls from the feed by its own cursor. Its snapshot is taken after the cursor, and
  what the snapshot already held is dropped from what follows.

Prior art: etcd's revisions and progress notices (a position is a number that everybody understands), the Kubernetes
list + watch pair and its bookmark, Armada's replay-then-follow. Cost: a change is looked at once by the pump and once
by each `JobsWatch`. Open: with many filtered watchers of a busy namespace, their filters could share one pass.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import JobNotFound, ResumeTokenExpired, ServerDraining, WatchTooSlow
from ..model import Job, LogLine, Progress, Record, Transition
from ..observe.logs import get_logger
from ..stores.base import Filter, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..clock import Clock
    from ..stores.base import Change, Store

_FEED_BATCH = 1_000
_PAGE = 250
_LOG_BATCH = 200
_LOG_CHARACTERS = 256 * 1024
_RETRY_AFTER = 1.0
_NO_OUTPUT = Output()

log = get_logger("atlas.watch")


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

    @property
    def place(self) -> tuple[int, int, int, int, bool]:
        """What distinguishes an update without log lines from others of the same job, record and output."""
        news = 0 if self.progress is None else self.progress.time
        return self.since, self.version, self.log, news, self.job is None

    @property
    def heartbeat(self) -> bool:
        return self.job is None and self.progress is None and not self.logs and not self.dropped_logs


class JobsUpdate(Record, frozen=True):
    """What a watcher of many jobs is told next."""

    jobs: tuple[Job, ...]
    deleted: tuple[str, ...]
    synced: bool
    cursor: int | None
    """None until the snapshot is complete."""
    final: bool = False

    @property
    def heartbeat(self) -> bool:
        return not self.jobs and not self.deleted and not self.synced


class Topic:
    """A watched job: its latest record and output, and who watches. `encoded` is for the wall to share messages."""

    __slots__ = ("encoded", "job", "output", "watches")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.output = _NO_OUTPUT
        self.watches: set[JobWatch] = set()
        self.encoded: dict[object, bytes] = {}

    def wake(self) -> None:
        for watch in self.watches:
            watch.signal.set()


class _Watch:
    """What both kinds have in common: a signal, a heartbeat, an end."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.signal = Signal()
        self.quiet = False
        self.beat_due = False

    async def _wait(self) -> None:
        """Returns when there may be news or a heartbeat is due. Raises ServerDraining at the end of the server."""
        if self.hub.draining:
            msg = "the server is about to stop; resume with the last token"
            raise ServerDraining(msg, retry_after=_RETRY_AFTER)
        await self.signal.wait()

    def _take_beat(self) -> bool:
        due, self.beat_due = self.beat_due, False
        return due


class JobWatch(_Watch):
    """Follows one job from a version and a log offset on. Made by `Hub.watch_job`; close it."""

    def __init__(self, hub: Hub, job_id: str, topic: Topic, *, version: int, log: int | None) -> None:
        super().__init__(hub)
        self.job_id = job_id
        self.topic = topic
        self._version = version
        self._log = log
        self._progress: Progress | None = None
        self._first = True

    @property
    def is_over(self) -> bool:
        """Whether the job is terminal, so that the next message may be the last."""
        return self.topic.job is not None and self.topic.job.state.terminal

    async def next(self) -> JobUpdate:
        """The next message. Raises JobNotFound when the job was deleted before its end was told."""
        while True:
            update = await self._news()
            if update is not None:
                return update
            await self._wait()
            if self._take_beat():
                return await self._news() or self._update(None, (), None, (), 0, final=False)

    async def _news(self) -> JobUpdate | None:
        job = self.topic.job
        if job is None:
            raise JobNotFound.of(self.job_id)
        steps = transitions_after(job, self._version)
        if self._version and steps and steps[0].version > self._version + 1:
            raise _expired(job)
        output = self.topic.output
        progress = output.progress if output.progress != self._progress else None
        logs, dropped = await self._new_logs(output, terminal=job.state.terminal)
        ended = job.state.terminal
        if ended and self._log is not None and self._log + dropped + len(logs) < output.log_end:
            # The end is told last, after all log lines.
            return self._update(None, (), None, logs, dropped, final=False)
        if not (steps or progress or logs or dropped or self._first or ended):
            return None
        whole = bool(steps) or self._first or ended
        self._first = False
        return self._update(job if whole else None, steps, progress, logs, dropped, final=ended)

    async def _new_logs(self, output: Output, *, terminal: bool) -> tuple[tuple[LogLine, ...], int]:
        if self._log is None or output.log_end <= self._log:
            return (), 0
        lines = await self.hub.store.logs(self.job_id, self._log, _LOG_BATCH)
        if not lines:
            return (), output.log_end - self._log if terminal else 0
        return _fitting(lines), lines[0].offset - self._log

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
            self._version = steps[-1].version
        if progress is not None:
            self._progress = progress
        if self._log is not None:
            self._log += dropped + len(logs)
        self.quiet = False
        latest = self.topic.output.progress
        return JobUpdate(job, steps, progress, logs, dropped, self._version, self._log or 0, latest, final, since)

    def close(self) -> None:
        """Ends the watch; harmless to repeat."""
        self.hub.leave(self)


class JobsWatch(_Watch):
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
        self._open_ids: set[str] | None = set(where.ids) if where.ids else None

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
                return await self._news() or JobsUpdate((), (), False, self._cursor)

    async def _next_page(self) -> JobsUpdate:
        everything = self._where if self._open_ids is None else Filter(self._where.namespace, self._where.ids)
        page = await self.hub.store.find(everything, self._after, _PAGE)
        for job in page.jobs:
            self._settle(job.spec.id, job)
            if job.update_time >= self._since:
                self._seen[job.spec.id] = job.version
        jobs = tuple(job for job in page.jobs if self._where.matches(job.spec, job.state))
        self._after = page.after
        if page.after is not None:
            return JobsUpdate(jobs, (), False, None)
        self._synced = True
        deleted = await self._missing()
        return JobsUpdate(jobs, deleted, True, self._cursor, self._is_over())

    async def _skip_snapshot(self) -> JobsUpdate:
        self._synced = True
        if self._open_ids is not None:
            names = sorted(self._open_ids)
            for job_id, job in zip(names, await self.hub.store.get(names), strict=True):
                self._settle(job_id, job if job is not None and job.spec.namespace == self._where.namespace else None)
        # What a resumed reader has not seen yet must still be told before the end.
        return JobsUpdate((), (), True, self._cursor)

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
                changes, cursor = await self.hub.store.changes(self._cursor, _FEED_BATCH)
            except ResumeTokenExpired:
                msg = "the reader fell behind the changes that are kept"
                raise WatchTooSlow(msg, retry_after=_RETRY_AFTER) from None
            moved = cursor > self._cursor
            self._cursor = cursor
            jobs, deleted = self._matching(changes)
            caught_up = cursor >= await self.hub.store.head()
            if caught_up:
                self._seen.clear()
            over = caught_up and self._is_over()
            if jobs or deleted or over:
                self.quiet = False
                return JobsUpdate(jobs, deleted, False, cursor, over)
            if not moved:
                return None
            await asyncio.sleep(0)

    def _matching(self, changes: Sequence[Change]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
        jobs: list[Job] = []
        deleted: list[str] = []
        for change in changes:
            job = change.job
            if change.spec.namespace == self._where.namespace:
                self._settle(change.spec.id, job)
            if not self._where.matches(change.spec, None):
                continue
            if job is None:
                deleted.append(change.spec.id)
            elif self._seen.get(change.spec.id, 0) < job.version and self._where.matches(change.spec, job.state):
                jobs.append(job)
        return tuple(jobs), tuple(deleted)

    def _settle(self, job_id: str, job: Job | None) -> None:
        if self._open_ids is not None and (job is None or job.state.terminal):
            self._open_ids.discard(job_id)

    def _is_over(self) -> bool:
        return self._open_ids is not None and not self._open_ids

    def close(self) -> None:
        """Ends the watch; harmless to repeat."""
        self.hub.leave(self)


class Hub:
    """All watches of a server over one store."""

    def __init__(self, store: Store, clock: Clock, heartbeat: float) -> None:
        self.store = store
        self.draining = False
        self._clock = clock
        self._heartbeat = heartbeat
        self._topics: dict[str, Topic] = {}
        self._followers: set[JobsWatch] = set()
        self._cursor = 0
        self._changed = Signal()
        self._outputs: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the pump and the heartbeat."""
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._beat())]

    async def stop(self) -> None:
        """Stops both; watches that are still open get no more news."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def drain(self) -> None:
        """Ends all watches: each tells what it has, then raises ServerDraining."""
        self.draining = True
        for watch in self._all():
            watch.signal.set()

    def open_watches(self) -> dict[str, int]:
        """How many watches there are of each kind, by the name of their method."""
        return {
            "WatchJob": sum(len(topic.watches) for topic in self._topics.values()),
            "WatchJobs": len(self._followers),
        }

    def on_changes(self) -> None:
        """A hint of the store: the feed has grown."""
        if self._topics:
            self._changed.set()
        for watch in self._followers:
            watch.signal.set()

    def on_output(self, ids: Sequence[str]) -> None:
        """A hint of the store: these jobs have new output."""
        if self._topics:
            self._outputs.update(job_id for job_id in ids if job_id in self._topics)
            if self._outputs:
                self._changed.set()

    async def watch_job(self, job_id: str, *, version: int | None, log: int | None, include_logs: bool) -> JobWatch:
        """Follows a job: from the beginning when `version` is None, else after it. The caller checked that it may.

        Raises JobNotFound, and ResumeTokenExpired when the transitions after `version` are no longer kept.
        """
        if not self._topics:
            head = await self.store.head()
            if not self._topics:
                self._cursor = head
        topic = self._topics.get(job_id)
        if topic is None:
            topic = self._topics[job_id] = Topic()
        offset = (log or 0) if include_logs else None
        watch = JobWatch(self, job_id, topic, version=version or 0, log=offset)
        topic.watches.add(watch)
        try:
            await self._load(job_id, topic)
            if topic.job is None:
                raise JobNotFound.of(job_id)
            if version is not None:
                _check_resumable(topic.job, version)
        except BaseException:
            watch.close()
            raise
        return watch

    async def watch_jobs(self, where: Filter, *, cursor: int | None, snapshot: bool) -> JobsWatch:
        """Follows the jobs of a filter: from a cursor on, or from now on, after a snapshot if one is wanted.

        Raises ResumeTokenExpired when the changes after the cursor are no longer kept.
        """
        if cursor is None:
            cursor = await self.store.head()
        else:
            await self.store.changes(cursor, 1)
        watch = JobsWatch(self, where, cursor, snapshot=snapshot)
        self._followers.add(watch)
        return watch

    def leave(self, watch: JobWatch | JobsWatch) -> None:
        """Forgets a watch, and a topic that nobody watches any more."""
        if isinstance(watch, JobsWatch):
            self._followers.discard(watch)
            return
        watch.topic.watches.discard(watch)
        if not watch.topic.watches and self._topics.get(watch.job_id) is watch.topic:
            del self._topics[watch.job_id]

    async def _load(self, job_id: str, topic: Topic) -> None:
        """Brings a topic up to date with the store, after somebody subscribed to it."""
        (job,), (output,) = await self.store.get([job_id]), await self.store.outputs([job_id])
        self._renew_output(topic, output)
        if job is not None and (topic.job is None or topic.job.version < job.version):
            topic.job = job
            topic.encoded.clear()

    async def _pump(self) -> None:
        behind = False
        while True:
            await self._changed.wait()
            try:
                await (self._reload() if behind else self._dispatch())
                behind = False
            except ResumeTokenExpired:
                behind = True
                self._changed.set()
            except Exception as error:
                log.error("watches could not be told news", exc_info=error)
                await self._clock.sleep(_RETRY_AFTER)
                behind = True
                self._changed.set()

    async def _dispatch(self) -> None:
        outputs, self._outputs = self._outputs, set()
        woken = await self._read_outputs(outputs)
        while self._topics:
            changes, cursor = await self.store.changes(self._cursor, _FEED_BATCH)
            # The last output first: who sees the end of a job must not take what was known before for all there is.
            ended = [one.spec.id for one in changes if one.job is not None and one.job.state.terminal]
            woken |= await self._read_outputs(job_id for job_id in ended if job_id in self._topics)
            for change in changes:
                topic = self._topics.get(change.spec.id)
                if topic is not None and self._renew(topic, change.job):
                    woken.add(topic)
            done = cursor == self._cursor
            self._cursor = cursor
            if done:
                break
        for topic in woken:
            topic.wake()

    async def _read_outputs(self, ids: Iterable[str]) -> set[Topic]:
        read: set[Topic] = set()
        names = list(ids)
        if names:
            for job_id, output in zip(names, await self.store.outputs(names), strict=True):
                if (topic := self._topics.get(job_id)) is not None:
                    self._renew_output(topic, output)
                    read.add(topic)
        return read

    @staticmethod
    def _renew_output(topic: Topic, output: Output) -> None:
        if _age(output) >= _age(topic.output):
            topic.output = output
            topic.encoded.clear()

    @staticmethod
    def _renew(topic: Topic, job: Job | None) -> bool:
        if job is None:
            # Watchers that have yet to read the end keep the last record; new ones find nothing in the store.
            if topic.job is not None and topic.job.state.terminal:
                return False
        elif topic.job is not None and topic.job.version >= job.version:
            return False
        topic.job = job
        topic.encoded.clear()
        return True

    async def _reload(self) -> None:
        """The pump lost its place in the feed: every topic is read anew."""
        self._cursor = await self.store.head()
        for job_id, topic in list(self._topics.items()):
            await self._load(job_id, topic)
            topic.wake()

    async def _beat(self) -> None:
        """Makes the watches speak that said nothing since the last round."""
        while True:
            watches = self._all()
            for watch in watches:
                watch.quiet = True
            await self._clock.sleep(self._heartbeat)
            for watch in watches:
                if watch.quiet:
                    watch.beat_due = True
                    watch.signal.set()

    def _all(self) -> list[_Watch]:
        return [*self._followers, *(watch for topic in self._topics.values() for watch in topic.watches)]


def transitions_after(job: Job, version: int) -> tuple[Transition, ...]:
    """The kept transitions of a job after a version."""
    history = job.history
    missing = job.version - version
    if missing <= 0:
        return ()
    return history[-missing:] if missing < len(history) else history


def _check_resumable(job: Job, version: int) -> None:
    if version > job.version or version + 1 < job.history[0].version:
        raise _expired(job)


def _expired(job: Job) -> ResumeTokenExpired:
    msg = "the history after this token is no longer kept; watch again without it"
    return ResumeTokenExpired(msg, metadata={"job_id": job.spec.id})


def _fitting(lines: Sequence[LogLine]) -> tuple[LogLine, ...]:
    """The first lines, so many that a message with them, a job and its result stays below what clients take."""
    size = 0
    for at, line in enumerate(lines):
        size += len(line.message)
        if at and size > _LOG_CHARACTERS:
            return tuple(lines[:at])
    return tuple(lines)


def _age(output: Output) -> tuple[int, int]:
    """Output only ever grows: what orders several answers of the store about the same job."""
    return output.log_end, 0 if output.progress is None else output.progress.time
