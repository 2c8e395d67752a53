"""Random operations on a store and on a naive model of it: a dictionary, sorting, and nothing clever.

The model knows the time only as an interval (before and after the call), so that a store with a clock of its own can be
held against it too; with the memory store the interval is one instant and every comparison is exact.
`ATLAS_TEST_DEEP=1` makes it look much longer.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from atlas_grpc import lifecycle
from atlas_grpc.errors import Code
from atlas_grpc.model import (
    SECOND,
    Ask,
    Content,
    Failed,
    Failure,
    Job,
    LogLine,
    Progress,
    Released,
    Severity,
    State,
    Stopped,
    Succeeded,
    TimedOut,
    Update,
)
from atlas_grpc.stores.base import Change, Filter, Output, QueueCount
from atlas_grpc.testing.stores._kit import Kit
from tests.conformance.stores.factories import MemoryFactory
from tests.conformance.stores.model import Model, Moment

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from atlas_grpc.testing.stores import StoreFactory

DEEP = 30 if os.environ.get("ATLAS_TEST_DEEP") else 1

TYPES = ("a", "b")
QUEUES = ("q", "r")
NAMESPACES = ("default", "other")
LABELS: tuple[dict[str, str], ...] = ({}, {"x": "1"}, {"x": "1", "y": "2"})
FAILURE = Failure(Code.UNKNOWN, "HANDLER_FAILED", "no")
OUTCOMES = (
    Succeeded(Content(b"1")),
    Failed(FAILURE),
    Failed(FAILURE, retryable=False),
    Released(),
    Released(SECOND),
    Stopped(),
    TimedOut(),
)

some_bytes = st.binary(max_size=3)
keys = st.sampled_from(["x", "y", "z"])
names = st.sampled_from(["", "", "n1", "n2"])
spans = st.sampled_from([0, 0, SECOND, 60 * SECOND])
some_types = st.frozensets(st.sampled_from(TYPES))
some_queues = st.frozensets(st.sampled_from(QUEUES))
asks = st.lists(
    st.builds(Ask, st.sampled_from(TYPES), st.integers(0, 4), st.none() | some_queues),
    max_size=2,
    unique_by=lambda a: a.type,
)
filters = st.builds(
    Filter,
    st.sampled_from(NAMESPACES),
    st.just(frozenset()),
    st.frozensets(st.sampled_from(State), max_size=2),
    some_types,
    some_queues,
    st.sampled_from(LABELS),
)

new_jobs = st.fixed_dictionaries(
    {
        "type": st.sampled_from(TYPES),
        "queue": st.sampled_from(QUEUES),
        "namespace": st.sampled_from(NAMESPACES),
        "priority": st.integers(-1, 1),
        "request_id": names,
        "labels": st.sampled_from(LABELS),
        "delay": spans,
        "since": st.integers(-2, 2),
        "retention": spans,
        "attempt_timeout": st.none() | spans.filter(bool),
        "total_timeout": st.none() | spans.filter(bool),
        "start_timeout": st.none() | spans.filter(bool),
    }
)


class StoreMachine(RuleBasedStateMachine):
    """Subclass it with another factory to run it on another store."""

    factory: StoreFactory = MemoryFactory()
    jobs: Bundle[str] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.cursors: dict[int, int] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def timed(self, work: Coroutine[Any, Any, Any]) -> tuple[Any, Moment]:
        start = self.store.now()
        answer = self.run(work)
        return answer, Moment(start, self.store.now())

    @initialize(target=jobs, batch=st.lists(new_jobs, min_size=2, max_size=10), order=st.randoms(use_true_random=False))
    def begin(self, batch: list[dict[str, Any]], order: Any) -> Any:
        """A store with some jobs and a session: Hypothesis leaves rules out of a run at random, `insert` too."""

        async def opened() -> Kit:
            self.stack = AsyncExitStack()
            kit = Kit(self.factory, await self.stack.enter_async_context(self.factory()))
            await kit.store.open(kit.listener)
            self.stack.push_async_callback(kit.store.close)
            return kit

        self.kit = self.run(opened())
        self.store = self.kit.store
        self.start = self.run(self.store.head())
        self.open_session(session="s", ttl=60 * SECOND, info=b"")
        return self._insert(batch, order)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.run(self.stack.aclose())
        self.loop.close()

    def current(self, job_id: str) -> Job | None:
        return self.model.jobs.get(job_id)

    @rule(target=jobs, batch=st.lists(new_jobs, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
    def insert(self, batch: list[dict[str, Any]], order: Any) -> Any:
        return self._insert(batch, order)

    def _insert(self, batch: list[dict[str, Any]], order: Any) -> Any:
        new = [self.kit.job(**fields) for fields in batch]
        order.shuffle(new)
        answers = self.run(self.store.insert(new))
        assert answers == [self.model.insert(job) for job in new]
        return multiple(*(job.id for job in new if job.id in self.model.jobs))

    @rule(ids=st.lists(jobs, max_size=5))
    def get(self, ids: list[str]) -> None:
        ids = [*ids, "unknown"]
        assert self.run(self.store.get(ids)) == [self.current(job_id) for job_id in ids]

    @rule(where=filters, limit=st.integers(1, 5), after=st.none() | jobs)
    def find(self, where: Filter, limit: int, after: str | None) -> None:
        wanted = sorted(
            (j for j in self.model.jobs.values() if where.matches(j.spec, j.state) and (after is None or j.id < after)),
            key=lambda job: job.id,
            reverse=True,
        )
        found: list[Job] = []
        for _ in range(len(self.model.jobs) + 2):
            page = self.run(self.store.find(where, after, limit))
            assert len(page.jobs) <= limit
            found += page.jobs
            after = page.after
            if after is None:
                break
        assert after is None
        assert found == wanted

    @rule(ids=st.frozensets(jobs, min_size=1, max_size=4))
    def find_by_id(self, ids: frozenset[str]) -> None:
        page = self.run(self.store.find(Filter("default", ids), None, 10))
        found = [job for job_id in sorted(ids, reverse=True) if (job := self.current(job_id)) is not None]
        assert list(page.jobs) == [job for job in found if job.spec.namespace == "default"]

    @rule(session=st.sampled_from(["s", "t"]), ttl=spans.filter(bool), info=some_bytes)
    def open_session(self, session: str, ttl: int, info: bytes) -> None:
        _, moment = self.timed(self.store.open_session(session, ttl, info))
        self.model.sessions[session] = Moment(moment.start + ttl, moment.end + ttl)
        self.model.infos[session] = info

    @rule()
    def sessions(self) -> None:
        found, moment = self.timed(self.store.sessions())
        assert found == sorted((session, self.model.infos[session]) for session, _ in found)
        told = {session for session, _ in found}
        for session in self.model.sessions:
            alive = self.model.alive(session, moment)
            assert alive is None or (session in told) == alive
        assert told <= self.model.sessions.keys()

    @rule(session=st.sampled_from(["s", "t", "unknown"]), ttl=spans.filter(bool))
    def renew(self, session: str, ttl: int) -> None:
        (answer,), moment = self.timed(self.store.renew([session], ttl))
        alive = self.model.alive(session, moment)
        assert alive is None or answer == alive
        if answer:
            self.model.sessions[session] = Moment(moment.start + ttl, moment.end + ttl)

    @rule(session=st.sampled_from(["s", "t"]))
    def close_session(self, session: str) -> None:
        self.run(self.store.close_session(session))
        self.model.sessions.pop(session, None)

    @rule(session=st.sampled_from(["s", "t"]), wanted=asks, limit=st.integers(0, 5))
    def claim(self, session: str, wanted: list[Ask], limit: int) -> None:
        taken, moment = self.timed(self.store.claim(session, "w", wanted, limit))
        alive = self.model.alive(session, moment)
        expected = self.model.claimable(wanted, limit) if alive is True or (alive is None and taken) else []
        assert [job.id for job in taken] == [job.id for job in expected]
        for old, job in zip(expected, taken, strict=True):
            assert moment.start <= job.attempt_start <= moment.end
            assert job.fence > self.model.fence
            self.model.fence = job.fence
            assert job == lifecycle.started(old, job.attempt_start, session=session, worker="w", fence=job.fence)
            self.model.write(job)

    @rule(batch=st.lists(jobs, max_size=4, unique=True), how=st.randoms(use_true_random=False), stale=st.booleans())
    def step(self, batch: list[str], how: Any, stale: bool) -> None:
        """Something that may happen to a job, or the same decided on an old record."""
        moved: list[Job] = []
        expected: list[int] = []
        for job_id in batch:
            job = self.current(job_id)
            if job is None:
                continue
            moved.append(self._moved(job, how))
            expected.append(job.version - 1 if stale and how.random() < 0.5 else job.version)
        answers = self.run(self.store.put(moved, expected))
        assert answers == [self.model.put(job, version) for job, version in zip(moved, expected, strict=True)]

    def _moved(self, job: Job, how: Any) -> Job:
        now = self.store.now()
        if job.state.terminal:
            return lifecycle.new_run(job, now)
        if job.state is State.RUNNING:
            choice = how.randrange(len(OUTCOMES) + 2)
            if choice < len(OUTCOMES):
                return lifecycle.ended(job, now, OUTCOMES[choice], self.kit.rng)
            if choice == len(OUTCOMES):
                return lifecycle.lost(job, now, self.kit.rng)
            return (
                lifecycle.request_cancel(job, now, "why", SECOND)
                if job.cancel_time is None
                else lifecycle.cancelled(job, now)
            )
        return lifecycle.cancelled(job, now)

    @rule(batch=st.lists(jobs, max_size=3, unique=True), stale=st.booleans())
    def delete(self, batch: list[str], stale: bool) -> None:
        records = [job for job_id in batch if (job := self.current(job_id)) is not None]
        if stale and records:
            records[0] = lifecycle.new_run(records[0], self.store.now())
        assert self.run(self.store.delete(records)) == [self.model.delete(job) for job in records]

    @rule(gone=consumes(jobs))
    def delete_for_good(self, gone: str) -> None:
        job = self.current(gone)
        if job is not None:
            assert self.run(self.store.delete([job, job])) == [True, False]
            self.model.delete(job)

    @rule(micros=st.sampled_from([1, SECOND, 30 * SECOND]))
    def pass_time(self, micros: int) -> None:
        self.run(self.factory.pass_time(self.store, micros))

    @rule(limit=st.integers(1, 6))
    def sweep(self, limit: int) -> None:
        (found, following), moment = self.timed(self.store.due(limit))
        timed = sorted((job.due, job.id) for job in self.model.jobs.values() if job.due is not None)
        surely = [job_id for due, job_id in timed if due <= moment.start]
        maybe = {job_id for due, job_id in timed if due <= moment.end}
        got = [job.id for job in found]
        assert [(job.due, job.id) for job in found] == sorted((job.due, job.id) for job in found)
        assert got[: len(surely)] == surely[:limit]
        assert set(got) <= maybe
        assert found == [self.current(job_id) for job_id in got]
        rest = [due for due, job_id in timed if job_id not in got]
        assert (following is None) == (not rest)
        if rest:
            assert following == rest[0] or (rest[0] <= moment.end and following <= moment.end)
        self._work_off(found, moment.end)

    def _work_off(self, found: list[Job], now: int) -> None:
        for job in found:
            after = lifecycle.on_timer(job, now, self.kit.rng)
            if after is None:
                assert self.run(self.store.delete([job])) == [True]
                self.model.delete(job)
            else:
                assert after is not job
                assert self.run(self.store.put([after], [job.version])) == [True]
                self.model.write(after)

    @rule(batch=st.lists(st.tuples(jobs, st.booleans(), st.integers(0, 2)), max_size=3))
    def report(self, batch: list[tuple[str, bool, int]]) -> None:
        updates = []
        for n, (job_id, stale, lines) in enumerate(batch):
            job = self.current(job_id)
            fence = 0 if job is None else job.fence - stale
            logs = tuple(LogLine(Severity.INFO, f"{n}.{line}") for line in range(lines))
            updates.append(Update(job_id, fence, Progress(float(n)) if n else None, logs))
        answers, moment = self.timed(self.store.report(updates))
        for update, answer in zip(updates, answers, strict=True):
            job = self.current(update.job_id)
            assert answer == (job is not None and job.state is State.RUNNING and job.fence == update.fence)
            if job is not None and answer:
                self._note(job, update, moment)

    def _note(self, job: Job, update: Update, moment: Moment) -> None:
        if update.progress is not None:
            self.model.progress[job.id] = update.progress
        kept = self.model.logs.setdefault(job.id, [])
        for line in update.logs:
            kept.append(LogLine(line.severity, line.message, job.attempt, len(kept), moment.start))

    @rule(ids=st.lists(jobs, max_size=4), start=st.integers(0, 5), limit=st.integers(0, 5))
    def outputs(self, ids: list[str], start: int, limit: int) -> None:
        found = self.run(self.store.outputs(ids))
        for job_id, output in zip(ids, found, strict=True):
            progress = self.model.progress.get(job_id)
            lines = self.model.logs.get(job_id, [])
            assert (output.progress and output.progress.current) == (progress and progress.current)
            assert output == Output(output.progress, 0, len(lines))
            told = self.run(self.store.logs(job_id, start, limit))
            key = [(line.offset, line.attempt, line.severity, line.message) for line in lines[start : start + limit]]
            assert [(line.offset, line.attempt, line.severity, line.message) for line in told] == key

    @rule(kind=st.sampled_from(["k", "l"]), documents=st.dictionaries(keys, some_bytes, max_size=3))
    def put_documents(self, kind: str, documents: dict[str, bytes]) -> None:
        self.run(self.store.put_documents(kind, documents))
        self.model.documents.setdefault(kind, {}).update(documents)

    @rule(kind=st.sampled_from(["k", "l"]), asked=st.none() | st.lists(keys, max_size=3))
    def documents(self, kind: str, asked: list[str] | None) -> None:
        known = self.model.documents.get(kind, {})
        wanted = {key: data for key, data in known.items() if asked is None or key in asked}
        assert self.run(self.store.documents(kind, asked)) == wanted

    @rule()
    def remember_place(self) -> None:
        self.cursors[self.run(self.store.head())] = len(self.model.changes)

    @rule(pick=st.randoms(use_true_random=False), limit=st.integers(1, 50))
    def read_feed(self, pick: Any, limit: int) -> None:
        """From the start or a remembered place, in pieces. The marker that ends the reading stays out of the model."""
        cursor, place = pick.choice([(self.start, 0), *self.cursors.items()])
        changes: list[Change] = self.run(self.kit.feed(cursor, limit))
        assert [(c.spec.id, c.job and c.job.version) for c in changes] == self.model.feed(place)
        for change in changes:
            assert change.job == self.current(change.spec.id)
            if change.job is not None:
                assert change.spec == change.job.spec

    @rule(session=st.sampled_from(["s", "t"]))
    def held(self, session: str) -> None:
        found = self.run(self.store.held(session, 1_000))
        mine = [job for job in self.model.jobs.values() if job.state is State.RUNNING and job.session == session]
        assert sorted(found, key=lambda job: job.id) == sorted(mine, key=lambda job: job.id)

    @rule()
    def expired(self) -> None:
        found, moment = self.timed(self.store.expired(1_000))
        assert len(found) == len(set(found))
        running = {job.session for job in self.model.jobs.values() if job.state is State.RUNNING}
        for session in self.model.sessions.keys() | running:
            alive = self.model.alive(session, moment)
            assert alive is None or (session in found) == (not alive)
        assert set(found) <= self.model.sessions.keys() | running

    @rule(job_id=jobs)
    def ahead(self, job_id: str) -> None:
        job = self.current(job_id)
        if job is not None and job.ready:
            mine = (-job.spec.priority, job.next_start, job.id)
            same = [other for other in self.model.ready() if other.spec.type == job.spec.type]
            before = sum((-other.spec.priority, other.next_start, other.id) < mine for other in same)
            assert self.run(self.store.ahead(job)) == before

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "store"):
            return
        counts = self.run(self.store.counts())
        jobs = self.model.jobs.values()
        found = {state: counts.states.get(state, 0) for state in State}
        markers = sum(q.depth for q in counts.queues if q.type == "marker")
        found[State.PENDING] -= markers
        assert found == {state: sum(job.state is state for job in jobs) for state in State}
        waits: dict[tuple[str, str], list[int]] = {}
        for job in self.model.ready():
            waits.setdefault((job.spec.queue, job.spec.type), []).append(job.next_start)
        wanted = [QueueCount(queue, kind, len(since), min(since)) for (queue, kind), since in waits.items()]
        queues = [count for count in counts.queues if count.type != "marker"]
        assert sorted(queues, key=repr) == sorted(wanted, key=repr)


class TestMemory(StoreMachine.TestCase):
    settings = settings(max_examples=150 * DEEP, stateful_step_count=40 if DEEP == 1 else 120)
