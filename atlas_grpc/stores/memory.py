"""The in-memory store: dictionaries and heaps, bounded, without an await inside any operation.

It is also the reference that the other stores are compared with. What it holds ends with the process. Heaps delete
lazily: an entry counts only while the job still looks as the entry says, and a heap is rebuilt when more than half of
it is stale.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

import msgspec

from .. import lifecycle
from ..errors import ResumeTokenExpired
from ..model import EMPTY_OBJECT, LogLine, State
from ._documents import check_documents, check_info, full
from ._output import JobOutput
from ._ready import ReadyIndex
from .base import MAX_DOCUMENTS, Change, Counts, Filter, Output, Page, Store, StoreListener, kinds_ready

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ..clock import Clock
    from ..model import Ask, Job, JobSpec, Update

_JOB_OVERHEAD = 1200
"""Bytes that a stored job takes beside its payload, result and labels; measured by `make bench`."""
_FAILURE_OVERHEAD = 1_000
"""Bytes that a failed attempt adds to its job's history, on average."""
_NO_OUTPUT = Output()
_FIND_BUDGET = 5_000
"""Jobs looked at in one call of `find`."""
_FEED_LENGTH = 100_000
"""Changes that the feed keeps."""


class MemoryLimits(msgspec.Struct, frozen=True):
    """Where a memory store says no (unfinished jobs) or forgets (finished ones, log lines)."""

    max_pending: int = 2_000_000
    max_finished: int = 1_000_000
    max_bytes: int = 2 << 30
    max_log_lines: int = 10_000
    max_log_bytes: int = 4 << 20
    feed_length: int = _FEED_LENGTH


class MemoryStore(Store):
    """Jobs in this process. `clock` is the store's clock."""

    instant = True

    def __init__(self, clock: Clock, limits: MemoryLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits or MemoryLimits()
        self._listeners: list[StoreListener] = []
        self._jobs: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._order: dict[str, list[str]] = {}
        self._dead: dict[str, int] = {}
        self._ready = ReadyIndex(self._jobs)
        self._due: list[tuple[int, str]] = []
        self._timed = 0
        self._finished: list[tuple[int, str, int]] = []
        """A heap of when jobs ended, with the version of that."""
        self._states = [0] * (max(State) + 1)
        self._size = 0
        self._epoch = f"{clock.now():x}"
        self._fence = clock.now()
        self._sessions: dict[str, int] = {}
        self._infos: dict[str, bytes] = {}
        self._held: dict[str, set[str]] = {}
        self._outputs: dict[str, JobOutput] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._feed: list[tuple[str, int] | JobSpec] = []
        self._head = 0
        self._gone: list[str] = []
        """Jobs removed since the listeners were last told."""

    @property
    def epoch(self) -> str:
        return self._epoch

    async def open(self, listener: StoreListener) -> None:
        self._listeners.append(listener)

    async def close(self) -> None:
        self._listeners.clear()

    def now(self) -> int:
        return self._clock.now()

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        answers: list[Job | None] = []
        written: list[Job] = []
        for job in jobs:
            spec = job.spec
            key = (spec.namespace, spec.request_id) if spec.request_id else None
            named = None if key is None else self._keys.get(key)
            if named is not None:
                answers.append(self._jobs[named])
                continue
            size = _size(job)
            if self._full(size):
                answers.append(None)
                continue
            if key is not None:
                self._keys[key] = spec.id
            self._list(spec)
            self._size += size
            self._write(None, job)
            written.append(job)
            answers.append(job)
        self._announce(written)
        return answers

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        jobs = self._jobs
        return [jobs.get(job_id) for job_id in ids]

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        candidates = self._named(where, after) if where.ids else self._newest(where.namespace, after)
        found: list[Job] = []
        last: str | None = None
        for looked, job in enumerate(candidates):
            if len(found) >= limit or looked >= _FIND_BUDGET:
                return Page(tuple(found), last)
            last = job.spec.id
            if where.matches(job.spec, job.state):
                found.append(job)
        return Page(tuple(found), None)

    def _named(self, where: Filter, after: str | None) -> Iterator[Job]:
        for job_id in sorted(where.ids, reverse=True):
            if (after is None or job_id < after) and (job := self._jobs.get(job_id)) is not None:
                yield job

    def _newest(self, namespace: str, after: str | None) -> Iterator[Job]:
        order = self._order.get(namespace, [])
        start = len(order) if after is None else bisect_left(order, after)
        for at in range(start - 1, -1, -1):
            job = self._jobs.get(order[at])
            if job is not None:
                yield job

    async def counts(self) -> Counts:
        return Counts({state: self._states[state] for state in State}, tuple(self._ready.counts()), self._size)

    async def ahead(self, job: Job) -> int:
        return self._ready.ahead(job)

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        answers = []
        written: list[Job] = []
        for job, version in zip(jobs, expected, strict=True):
            old = self._jobs.get(job.spec.id)
            fits = (
                old is not None
                and old.version == version
                and (old.state is not State.RUNNING or lifecycle.holds(old, job.fence))
            )
            if fits:
                self._write(old, job)
                written.append(job)
            answers.append(fits)
        self._forget_surplus()
        self._announce(written)
        return answers

    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        answers = []
        for job in jobs:
            old = self._jobs.get(job.spec.id)
            fits = old is not None and old.version == job.version
            if old is not None and fits:
                self._remove(old)
            answers.append(fits)
        self._announce()
        return answers

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        now = self.now()
        if self._sessions.get(session, 0) <= now:
            return []
        taken: list[Job] = []
        for old in self._ready.take(asks) if limit > 0 else ():
            self._fence += 1
            job = lifecycle.started(old, now, session=session, worker=worker, fence=self._fence)
            self._write(old, job)
            taken.append(job)
            if len(taken) >= limit:
                break
        self._announce(taken)
        return taken

    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        now = self.now()
        heap = self._due
        found: list[Job] = []
        while heap:
            at, job_id = heap[0]
            job = self._jobs.get(job_id)
            # A job that was written twice with the same instant has two entries, one after the other.
            if job is not None and job.due == at and not (found and found[-1] is job):
                if at > now:
                    self._restore(found)
                    return found, at
                if len(found) >= limit:
                    self._restore(found)
                    return found, now
                found.append(job)
            heapq.heappop(heap)
        self._restore(found)
        return found, None

    def _restore(self, found: list[Job]) -> None:
        for job in found:
            if job.due is not None:
                heapq.heappush(self._due, (job.due, job.spec.id))

    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        check_info(info)
        self._sessions[session] = self.now() + ttl
        self._infos[session] = info
        self._held.setdefault(session, set())

    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        now = self.now()
        answers = []
        for session in sessions:
            alive = self._sessions.get(session, 0) > now
            if alive:
                self._sessions[session] = now + ttl
            answers.append(alive)
        return answers

    async def sessions(self) -> list[tuple[str, bytes]]:
        now = self.now()
        return sorted((session, self._infos[session]) for session, until in self._sessions.items() if until > now)

    async def close_session(self, session: str) -> None:
        self._sessions.pop(session, None)
        self._infos.pop(session, None)
        if not self._held.get(session):
            self._held.pop(session, None)

    async def expired(self, limit: int) -> list[str]:
        now = self.now()
        over = [session for session, until in self._sessions.items() if until <= now]
        orphaned = [session for session, held in self._held.items() if held and session not in self._sessions]
        return (over + orphaned)[:limit]

    async def held(self, session: str, limit: int) -> list[Job]:
        ids = sorted(self._held.get(session, ()))[:limit]
        return [self._jobs[job_id] for job_id in ids]

    async def head(self) -> int:
        return self._head

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        if not self._head - len(self._feed) <= after <= self._head:
            msg = "changes after this position are no longer kept"
            raise ResumeTokenExpired(msg)
        changes = []
        end = min(after + limit, self._head)
        for cursor in range(after, end):
            entry = self._feed[cursor % self._limits.feed_length]
            if not isinstance(entry, tuple):
                changes.append(Change(entry, None))
                continue
            job = self._jobs.get(entry[0])
            if job is not None and job.version == entry[1]:
                changes.append(Change(job.spec, job))
        return changes, end

    async def report(self, updates: Sequence[Update]) -> list[bool]:
        now = self.now()
        answers = []
        for update in updates:
            job = self._jobs.get(update.job_id)
            if job is None or not lifecycle.holds(job, update.fence):
                answers.append(False)
                continue
            output = self._outputs.get(update.job_id)
            if output is None:
                output = JobOutput(self._limits.max_log_lines, self._limits.max_log_bytes)
                self._outputs[update.job_id] = output
            if update.progress is not None:
                output.show(update.progress, now)
            if update.logs:
                self._size -= output.size
                output.append(update.logs, job.attempt, now)
                self._size += output.size
            answers.append(True)
        ids = [update.job_id for update in updates]
        for listener in self._listeners:
            listener.on_output(ids)
        return answers

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        known = self._outputs
        return [known[job_id].extent() if job_id in known else _NO_OUTPUT for job_id in ids]

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        output = self._outputs.get(job_id)
        return [] if output is None else output.read(start, limit)

    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        check_documents(kind, documents)
        known = self._documents.get(kind, {})
        if len(known.keys() | documents.keys()) > MAX_DOCUMENTS:
            raise full()
        self._documents[kind] = {**known, **documents}

    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        known = self._documents.get(kind, {})
        return dict(known) if keys is None else {key: known[key] for key in keys if key in known}

    def _full(self, more: int) -> bool:
        states = self._states
        if states[State.PENDING] + states[State.RUNNING] >= self._limits.max_pending:
            return True
        if self._size + more > self._limits.max_bytes:
            self._forget_surplus(more)
        return self._size + more > self._limits.max_bytes

    def _forget_surplus(self, more: int = 0) -> None:
        """Deletes finished jobs beyond the bounds."""
        while self._finished:
            if self._terminal() <= self._limits.max_finished and self._size + more <= self._limits.max_bytes:
                return
            entry = heapq.heappop(self._finished)
            if self._is_latest(entry):
                self._remove(self._jobs[entry[1]])

    def _terminal(self) -> int:
        states = self._states
        return states[State.SUCCESS] + states[State.FAILED] + states[State.CANCELLED]

    def _is_latest(self, entry: tuple[int, str, int]) -> bool:
        job = self._jobs.get(entry[1])
        return job is not None and job.version == entry[2]

    def _write(self, old: Job | None, job: Job) -> None:
        spec = job.spec
        self._jobs[spec.id] = job
        self._states[job.state] += 1
        if old is not None:
            self._size += _told(job) - _told(old)
            self._unindex(old)
        if job.ready:
            self._ready.add(job)
        if job.due is not None:
            self._timed += 1
            heapq.heappush(self._due, (job.due, spec.id))
            if len(self._due) > 2 * self._timed + 1024:
                self._due = [(j.due, j.spec.id) for j in self._jobs.values() if j.due is not None]
                heapq.heapify(self._due)
        if job.state is State.RUNNING:
            self._held.setdefault(job.session, set()).add(spec.id)
        if job.finish_time is not None:
            heapq.heappush(self._finished, (job.finish_time, spec.id, job.version))
            if len(self._finished) > 2 * self._terminal() + 1024:
                self._finished = [entry for entry in self._finished if self._is_latest(entry)]
                heapq.heapify(self._finished)
        self._append((spec.id, job.version))

    def _unindex(self, job: Job) -> None:
        self._states[job.state] -= 1
        if job.ready:
            self._ready.remove(job)
        if job.due is not None:
            self._timed -= 1
        if job.state is State.RUNNING:
            held = self._held[job.session]
            held.discard(job.spec.id)
            if not held and job.session not in self._sessions:
                del self._held[job.session]

    def _remove(self, job: Job) -> None:
        spec = job.spec
        del self._jobs[spec.id]
        self._gone.append(spec.id)
        self._size -= _size(job)
        self._unindex(job)
        output = self._outputs.pop(spec.id, None)
        if output is not None:
            self._size -= output.size
        if spec.request_id:
            del self._keys[spec.namespace, spec.request_id]
        self._append(msgspec.structs.replace(spec, payload=EMPTY_OBJECT))
        self._unlist(spec.namespace)

    def _append(self, entry: tuple[str, int] | JobSpec) -> None:
        """Adds to the feed: the id and version of a job that changed, or the spec of one that was deleted."""
        at = self._head % self._limits.feed_length
        if at < len(self._feed):
            self._feed[at] = entry
        else:
            self._feed.append(entry)
        self._head += 1

    def _list(self, spec: JobSpec) -> None:
        """Adds to the listing of the namespace. Ids grow, but of concurrent submits a later one may come first."""
        order = self._order.setdefault(spec.namespace, [])
        if order and spec.id < order[-1]:
            insort(order, spec.id)
        else:
            order.append(spec.id)

    def _unlist(self, namespace: str) -> None:
        dead = self._dead[namespace] = self._dead.get(namespace, 0) + 1
        order = self._order[namespace]
        if dead == len(order):
            del self._order[namespace], self._dead[namespace]
        elif dead * 2 > len(order) + 1024:
            self._order[namespace] = [job_id for job_id in order if job_id in self._jobs]
            self._dead[namespace] = 0

    def _announce(self, written: Sequence[Job] = ()) -> None:
        """Tells the listeners what an operation wrote, and what it removed."""
        gone, self._gone = self._gone, []
        ready = kinds_ready(written)
        for listener in self._listeners:
            if written:
                listener.on_changes(written)
            if gone:
                listener.on_news(gone)
            if ready:
                listener.on_ready(ready)


def _size(job: Job) -> int:
    spec = job.spec
    return _JOB_OVERHEAD + len(spec.payload.data) + 100 * len(spec.labels) + _told(job)


def _told(job: Job) -> int:
    """The part of the size that changes in a job's life: what its attempts left."""
    failed = job.failures + job.crashes
    size = _FAILURE_OVERHEAD * failed if failed else 0
    return size if job.result is None else size + len(job.result.data)
