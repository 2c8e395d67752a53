"""The Store protocol: an indexed, versioned map of jobs with an atomic claim and a change feed.

A store runs no state machine. All operations take batches; every one is atomic per job, and what a call acknowledged
is durable in the sense of that store. Times are microseconds on the store's own clock, `now()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from msgspec import msgpack

from ..errors import FailedPrecondition
from ..model import JobSpec, LogLine, Progress, Record, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ..model import Ask, Job, Update
    from ..observe.readings import Reading

MAX_INFO = 64 << 10
"""Bytes of what a session tells of itself."""
MAX_DOCUMENT = 1 << 20
"""Bytes of a document."""
MAX_DOCUMENTS = 10_000
"""Documents of a kind."""
MAX_DOCUMENT_NAME = 200
"""Characters of the key, or of the kind, of a document."""


class WrongUrl(ValueError):
    """The URL of a store cannot be used. `option` names the part that is wrong; the text holds no password."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class UnsuitableDatabase(FailedPrecondition):
    """The database is there, but cannot hold a store as it is set up; raised by `open`."""

    reason = "UNSUITABLE_DATABASE"


class Filter(Record, frozen=True):
    """Which jobs are meant: all that is set must match; within a set any one is enough. Times: from ≤ created <
    before.
    """

    namespace: str
    ids: frozenset[str] = frozenset()
    states: frozenset[State] = frozenset()
    types: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    labels: dict[str, str] = {}
    created_from: int | None = None
    created_before: int | None = None

    def matches(self, spec: JobSpec, state: State | None) -> bool:
        """Whether a job matches; a deleted one has no state and matches any."""
        if spec.namespace != self.namespace:
            return False
        if self.ids and spec.id not in self.ids:
            return False
        if self.states and state is not None and state not in self.states:
            return False
        if self.types and spec.type not in self.types:
            return False
        if self.queues and spec.queue not in self.queues:
            return False
        if self.labels and any(spec.labels.get(k) != v for k, v in self.labels.items()):
            return False
        if self.created_from is not None and spec.create_time < self.created_from:
            return False
        return self.created_before is None or spec.create_time < self.created_before

    def key(self) -> bytes:
        """The same for filters that mean the same, and only for them."""
        parts = (
            self.namespace,
            sorted(self.ids),
            sorted(self.states),
            sorted(self.types),
            sorted(self.queues),
            sorted(self.labels.items()),
            self.created_from,
            self.created_before,
        )
        return msgpack.encode(parts)


class Page(Record, frozen=True):
    """A part of a listing, newest first. `after` continues it; None after the last."""

    jobs: tuple[Job, ...]
    after: str | None


class Change(Record, frozen=True):
    """An entry of the feed: this job changed. `job` is as it is now, None when it was deleted."""

    spec: JobSpec
    """Without payload when the job was deleted."""
    job: Job | None


class Output(Record, frozen=True):
    """What a job told about itself: its progress, and which log lines are kept (`log_start` ≤ offset < `log_end`)."""

    progress: Progress | None = None
    log_start: int = 0
    log_end: int = 0


class QueueCount(Record, frozen=True):
    """How many jobs of a type wait ready in a queue, and since when the first of them."""

    queue: str
    type: str
    depth: int
    oldest: int


class Counts(Record, frozen=True):
    """How full the store is."""

    states: Mapping[State, int]
    queues: tuple[QueueCount, ...]
    size: int
    """An estimate in bytes; 0 where the store does not know."""


Kind = tuple[str, str]
"""A job type and a queue."""


def kinds_ready(jobs: Iterable[Job]) -> set[Kind]:
    """Of which kinds jobs are ready."""
    return {(job.spec.type, job.spec.queue) for job in jobs if job.ready}


class StoreListener(Protocol):
    """Hints of a store to its engine. They may come too often, or be lost: the store gives `on_ready` and `on_news`
    again, without kinds and ids, when it cannot be sure (after a reconnect, and now and then where stores share their
    data).
    """

    def on_ready(self, kinds: Collection[Kind] | None = None) -> None:
        """Jobs of these kinds became claimable, here or elsewhere; None when it is not known of which."""
        ...

    def on_changes(self, jobs: Sequence[Job]) -> None:
        """This store object wrote these records, in this order."""
        ...

    def on_news(self, ids: Collection[str] | None) -> None:
        """These jobs were deleted, or changed by another store object on the same data; None when it is not known which
        ones. Empty when no job changed, but the feed may tell more than before."""
        ...

    def on_output(self, ids: Collection[str]) -> None:
        """These jobs have new progress or log lines."""
        ...


class Store(Protocol):
    """What the engine needs of a store. Errors: `StoreFull` where said; `Unavailable` when the store cannot be
    reached.

    A store may bound how many finished jobs it keeps, or how much all jobs take, and deletes finished ones beyond that
    before their retention is over: those that ended first go first, those of one instant by id. Whatever their
    retention: else a job that has just ended could be the next to go. Unfinished jobs are never deleted.
    """

    instant: ClassVar[bool] = False
    """Whether no operation ever waits, so that it cannot be interrupted and gathering calls gains nothing."""

    @property
    def epoch(self) -> str:
        """The line of descent of the feed's cursors: another one means that they cannot be compared."""
        ...

    async def open(self, listener: StoreListener) -> None:
        """Makes the store ready for use and registers who gets its hints."""
        ...

    async def close(self) -> None:
        """Lets go of everything. The store may be opened again."""
        ...

    def now(self) -> int:
        """The store's clock. Where that is a server's, raises Unavailable before the store was opened for the first
        time; never after that, even while the server is away."""
        ...

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        """Inserts new jobs. For each the stored job: the given one, or the one that its (namespace, request id) already
        named, also when that came earlier in the same batch; None when the store is full."""
        ...

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        """Reads jobs by id."""
        ...

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        """Lists jobs, newest first. May stop early at a bound on the work; the page then says where to continue."""
        ...

    async def counts(self) -> Counts:
        """How full the store is."""
        ...

    async def ahead(self, job: Job) -> int:
        """How many ready jobs of the same type would be claimed before this one."""
        ...

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        """Compare-and-set: stores each job whose stored version is the expected one; False for each that is stale or
        gone. While the stored one runs, the given one must carry its token too: after a failover that lost writes the
        same version may have been given to the claim of another worker.
        """
        ...

    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        """Deletes each job whose stored version is that of the given record."""
        ...

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        """Hands ready jobs to a session: best priority first, then longest ready, no job twice, each with a fresh token
        larger than any before. No more per ask than its slots, no more in all than `limit`."""
        ...

    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        """Jobs whose `due` has come, earliest first, those of one instant by id, and when the next one after those will
        be due."""
        ...

    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        """Opens a worker session that expires after `ttl` unless renewed. `info`, at most MAX_INFO bytes, is what the
        worker tells of itself; the store does not look into it. Opening a session that is there gives it a new term
        and replaces its info. Raises ValueError when the info is too large."""
        ...

    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        """Extends sessions, whose infos stay; False for each that is not there any more."""
        ...

    async def sessions(self) -> list[tuple[str, bytes]]:
        """The open sessions that have not expired, each with its info, in the order of their ids. All of one instant,
        however many: meant for up to 10,000."""
        ...

    async def close_session(self, session: str) -> None:
        """Forgets a session. Its jobs stay as they are."""
        ...

    async def expired(self, limit: int) -> list[str]:
        """Sessions whose time is over. They stay until closed, and cannot be renewed or claim."""
        ...

    async def held(self, session: str, limit: int) -> list[Job]:
        """Running jobs of a session."""
        ...

    async def head(self) -> int:
        """The cursor after the newest change."""
        ...

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        """Up to `limit` entries of the feed after a cursor, in order, and the cursor after them. Of several changes
        of one job only the latest is told, so there may be fewer. Raises ResumeTokenExpired when changes after the
        cursor are no longer kept.

        The order is that in which calls took effect. What one call changed stands in the order of its batch, what it
        claimed in the order of its answer; changes of others may stand between."""
        ...

    async def report(self, updates: Sequence[Update]) -> list[bool]:
        """Stores progress (latest wins) and appends log lines; False for each whose token is not the running one."""
        ...

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        """Progress and extent of the logs, empty for unknown jobs."""
        ...

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        """Kept log lines from an offset on, in order; the first may have a larger one: what is between is gone."""
        ...

    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        """Stores small named documents that are for all who use the store: each under its key, in the place of what
        was there, all of the call or none. They are as durable as jobs and stay for ever; the feed does not tell of
        them, and no hint is given. What is there already with the same bytes is not written again.

        Kinds and keys are of 1 to MAX_DOCUMENT_NAME characters, none of them NUL; a document has at most MAX_DOCUMENT
        bytes. Raises ValueError for others, and StoreFull when the kind would have more than MAX_DOCUMENTS."""
        ...

    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        """Those of these documents that exist, or all of the kind, by key and in no order; all of one instant. Empty
        for a kind that nobody wrote."""
        ...

    def vitals(self) -> Mapping[str, Reading]:
        """How the store is doing, as far as it knows without asking anybody, by the names of `vitals.VITALS`. Empty
        while it is closed."""
        return {}

    async def examine(self) -> Mapping[str, Reading]:
        """The same for what it has to ask its database or disk for."""
        return {}
