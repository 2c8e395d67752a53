"""The watch hub: from the store's change feed to any number of watchers, exactly and in bounded memory.

Why it looks like this. A watcher must see every transition in order, without gap or repeat, on any server, however
late it comes, however often it is cut and however slowly it reads. Queues per watcher either grow without bound or
drop. So no watcher has a queue. A job's record carries its own history, and the feed is kept by the store; a watcher
only remembers *where it is* (a version, a log offset, a feed cursor) and, when it is ready for more, reads everything
after that place in one go. Being slow costs nothing and makes messages larger, not more; resuming is the same
operation as going on; 1,000 watchers of one job share one record and, at the wall, one encoded message.

- `JobWatch` follows one job, `LogWatch` its log alone. The hub keeps a topic per watched job with its latest record and
  output. What this server writes reaches the topics as it is; of what others wrote it is told the ids, and one pump
  reads these jobs. Topics take a record only for a newer one, and wake their watchers.
- `JobsWatch` follows a filter. It pulls from the feed by its own cursor, in stretches that are read, matched and
  encoded once for all who stand at the same place with the same filter. Its snapshot is taken after the cursor, and
  what the snapshot already held is dropped from what follows.

Prior art: etcd's revisions and progress notices (a position is a number that everybody understands), the Kubernetes
list + watch pair and its bookmark, Armada's replay-then-follow. Cost: a change is looked at once by the pump and once
for each filter that is followed in its namespace.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import JobNotFound
from ..observe.logs import get_logger
from .feed import Feed
from .logs import LogWatch
from .watches import RETRY_AFTER, JobsWatch, JobWatch, Signal, Topic, TopicWatch, check_resumable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ..clock import Clock
    from ..model import Job
    from ..stores.base import Filter, Output, Store
    from .logs import Wanted
    from .watches import Watch

_BEAT_CHECKS = 5
"""How often in a heartbeat's period the watches are looked at."""

log = get_logger("atlas.watch")


class Hub:
    """All watches of a server over one store."""

    def __init__(self, store: Store, clock: Clock, heartbeat: float) -> None:
        self.store = store
        self.draining = False
        self.clock = clock
        self.feed = Feed(store)
        self._heartbeat = heartbeat
        self._topics: dict[str, Topic] = {}
        self._followers: set[JobsWatch] = set()
        self._changed = Signal()
        self._written: dict[str, Job] = {}
        """Watched jobs that this server wrote as ended: the pump reads their last output, then hands them on."""
        self._renewed: set[Topic] = set()
        """Topics whose watchers are still to be woken, so that what comes in quick succession is one message."""
        self._doubtful: set[str] = set()
        """Watched jobs that must be read anew."""
        self._outputs: set[str] = set()
        self._dispatching = asyncio.Lock()
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

    async def drain(self) -> None:
        """Ends all watches: each tells what there is to tell, then raises ServerDraining."""
        try:
            async with asyncio.timeout(RETRY_AFTER):
                await self._dispatch()
        except Exception as error:
            log.warning("watches end without the latest news", error=type(error).__name__)
        self.draining = True
        for watch in self._all():
            watch.signal.set()

    def open_watches(self) -> dict[str, int]:
        """How many watches there are of each kind, by the name of their method."""
        watches = [watch for topic in self._topics.values() for watch in topic.watches]
        logs = sum(isinstance(watch, LogWatch) for watch in watches)
        return {"WatchJob": len(watches) - logs, "WatchJobs": len(self._followers), "TailJobLogs": logs}

    def on_changes(self, jobs: Sequence[Job]) -> None:
        """This server wrote these records."""
        if self._topics:
            for job in jobs:
                topic = self._topics.get(job.spec.id)
                if topic is None:
                    continue
                if job.state.terminal:
                    self._written[job.spec.id] = job
                    self._changed.set()
                elif self._renew(topic, job):
                    self._renewed.add(topic)
                    self._changed.set()
        self._wake_followers()

    def on_news(self, ids: Collection[str] | None) -> None:
        """These jobs were deleted or changed elsewhere; None when it is not known which, nor which have new output."""
        if self._topics:
            if ids is None:
                self._outputs.update(self._topics)
            self._doubtful.update(self._topics if ids is None else self._watched(ids))
            if self._doubtful:
                self._changed.set()
        self._wake_followers()

    def on_output(self, ids: Collection[str]) -> None:
        """These jobs have new output."""
        if self._topics:
            self._outputs.update(self._watched(ids))
            if self._outputs:
                self._changed.set()

    def _watched(self, ids: Iterable[str]) -> list[str]:
        return [job_id for job_id in ids if job_id in self._topics]

    def _wake_followers(self) -> None:
        self.feed.news()
        for watch in self._followers:
            watch.signal.set()

    async def watch_job(
        self, job_id: str, *, version: int | None = None, time: int = 0, log: int | None = None, include_logs: bool
    ) -> JobWatch:
        """Follows a job: from the beginning when `version` is None, else after it. The caller checked that it may.

        Raises JobNotFound, and ResumeTokenExpired when the transitions after `version` are no longer kept.
        """
        offset = (log or 0) if include_logs else None
        watch = JobWatch(self, job_id, self._topic(job_id), version=version or 0, time=time, log=offset)
        try:
            job = await self._join(watch)
            if version is not None:
                check_resumable(job, version, time)
        except BaseException:
            watch.close()
            raise
        return watch

    async def watch_log(self, job_id: str, wanted: Wanted) -> LogWatch:
        """Follows the log of a job. Raises JobNotFound."""
        watch = LogWatch(self, job_id, self._topic(job_id), wanted)
        try:
            await self._join(watch)
            await watch.begin()
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

    def leave(self, watch: TopicWatch | JobsWatch) -> None:
        """Forgets a watch, and a topic that nobody watches any more."""
        if isinstance(watch, JobsWatch):
            self._followers.discard(watch)
            return
        watch.topic.watches.discard(watch)
        if not watch.topic.watches and self._topics.get(watch.job_id) is watch.topic:
            del self._topics[watch.job_id]

    def _topic(self, job_id: str) -> Topic:
        return self._topics.setdefault(job_id, Topic())

    async def _join(self, watch: TopicWatch) -> Job:
        """Subscribes to the topic of a job, then brings it up to date with the store. Raises JobNotFound."""
        topic, job_id = watch.topic, watch.job_id
        topic.watches.add(watch)
        (job,), (output,) = await self.store.get([job_id]), await self.store.outputs([job_id])
        self._renew_output(topic, output)
        if job is not None:
            self._renew(topic, job)
        if topic.job is None:
            raise JobNotFound.of(job_id)
        return topic.job

    async def _pump(self) -> None:
        while True:
            await self._changed.wait()
            try:
                await self._dispatch()
            except Exception as error:
                log.error("watches could not be told news", exc_info=error)
                await self.clock.sleep(RETRY_AFTER)
                self.on_news(None)

    async def _dispatch(self) -> None:
        """Hands on all news; when it returns, that of earlier calls has been handed on too."""
        async with self._dispatching:
            await self._hand_on()

    async def _hand_on(self) -> None:
        written, self._written = self._written, {}
        doubtful, self._doubtful = self._watched(self._doubtful), set()
        outputs, self._outputs = self._outputs, set()
        woken, self._renewed = self._renewed, set()
        news: dict[str, Job | None] = {}
        if doubtful:
            news.update(zip(doubtful, await self.store.get(doubtful), strict=True))
        for job_id, mine in written.items():
            read = news.get(job_id, mine)
            if read is None or read.version <= mine.version:
                news[job_id] = mine
        # Who sees the end of a job must not take the output that was known before for all there is.
        outputs.update(job_id for job_id, job in news.items() if job is not None and job.state.terminal)
        woken |= await self._read_outputs(outputs)
        for job_id, job in news.items():
            topic = self._topics.get(job_id)
            if topic is not None and self._renew(topic, job):
                woken.add(topic)
        for topic in woken:
            topic.wake()

    async def _read_outputs(self, ids: Iterable[str]) -> set[Topic]:
        read: set[Topic] = set()
        names = self._watched(ids)
        if names:
            for job_id, output in zip(names, await self.store.outputs(names), strict=True):
                if (topic := self._topics.get(job_id)) is not None:
                    self._renew_output(topic, output)
                    read.add(topic)
        return read

    @staticmethod
    def _renew_output(topic: Topic, output: Output) -> None:
        if output != topic.output and _age(output) >= _age(topic.output):
            topic.take_output(output)

    @staticmethod
    def _renew(topic: Topic, job: Job | None) -> bool:
        if job is None:
            # Watchers that have yet to read the end keep the last record; new ones find nothing in the store.
            if topic.job is not None and topic.job.state.terminal:
                return False
        elif topic.job is not None and topic.job.version >= job.version:
            return False
        topic.take(job)
        return True

    async def _beat(self) -> None:
        """Makes the watches speak that said nothing for nearly a whole period."""
        while True:
            await self.clock.sleep(self._heartbeat / _BEAT_CHECKS)
            latest = self.clock.monotonic() - self._heartbeat * (1 - 1 / _BEAT_CHECKS)
            self.feed.news()  # in case that somebody said nothing of some
            for watch in self._all():
                if watch.spoke <= latest:
                    watch.beat_due = True
                    watch.signal.set()

    def _all(self) -> list[Watch]:
        return [*self._followers, *(watch for topic in self._topics.values() for watch in topic.watches)]


def _age(output: Output) -> tuple[int, int]:
    """Output only ever grows: what orders several answers of the store about the same job."""
    return output.log_end, 0 if output.progress is None else output.progress.time
