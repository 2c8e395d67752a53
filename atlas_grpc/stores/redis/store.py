"""The store itself: each operation of the protocol as calls of scripts. `__init__` tells why it looks like this."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import msgpack

from ...errors import ResumeTokenExpired
from ...model import LogLine, Progress, Severity, State
from ...observe.logs import get_logger
from ..base import Change, Counts, Filter, Output, Page, QueueCount, Store, StoreListener
from ..codec import decode_spec
from . import batches, records
from .audit import Auditor
from .link import Link, not_open
from .stats import Health, Stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...clock import Clock
    from ...model import Ask, Job, JobSpec, Update
    from .audit import Findings
    from .url import Target

_FIND_CHUNK = 200
_FIND_BUDGET = 5_000
"""Jobs looked at in one call of `find`."""
_CHANGES = 100
_EXACT = 2**53
_UNBOUNDED = 2**53
_FORGET_BATCH = 100
_REMEMBERED = 10_000
_SMALL = 4_096

log = get_logger("atlas.store.redis")

_decode_progress = msgpack.Decoder(Progress).decode
_decode_line = msgpack.Decoder(tuple[int, Severity, str, int]).decode


class RedisLimits(msgspec.Struct, frozen=True):
    """Where a store says no (unfinished jobs, bytes) or forgets (finished jobs, log lines, old changes).

    The server's `maxmemory` is a bound too, for all that it holds: then inserts are refused as well. `max_bytes` 0 is no
    bound; logs do not count against it.
    """

    max_pending: int = 1_000_000
    max_finished: int = 1_000_000
    max_bytes: int = 0
    max_log_lines: int = 1_000
    max_log_bytes: int = 1 << 20
    feed_length: int = 100_000


class RedisStore(Store):
    """Jobs in Redis or Valkey. Several may be open on the same data."""

    def __init__(self, target: Target, clock: Clock, limits: RedisLimits | None = None) -> None:
        self._limits = limits or RedisLimits()
        self._clock = clock
        self._link = Link(target, clock)
        self._auditor = Auditor(self._link, clock)
        self._audits: asyncio.Task[None] | None = None
        self._listener: StoreListener | None = None
        self._forgetting: asyncio.Task[None] | None = None
        self._specs: dict[str, JobSpec] = {}
        self.stats = Stats()

    @property
    def epoch(self) -> str:
        return self._link.epoch

    async def open(self, listener: StoreListener) -> None:
        """Connects. Raises UnfitServer when the server must not be used as it is set up, Unavailable when there is none."""
        await self._link.open(listener)
        self._listener = listener
        if self._link.target.options.audit:
            self._audits = asyncio.create_task(self._auditor.keep())

    async def close(self) -> None:
        self._listener = None
        tasks = [task for task in (self._audits, self._forgetting) if task is not None]
        self._audits = self._forgetting = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._link.close()

    def now(self) -> int:
        return self._link.clock.now()

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        answers: list[Job | None] = await self._insert(jobs)
        while None in answers and self._limits.max_bytes:
            refused = [at for at, job in enumerate(answers) if job is None]
            if not await self._make_room(sum(records.size(jobs[at].spec) for at in refused)):
                break
            for at, job in zip(refused, await self._insert([jobs[at] for at in refused]), strict=True):
                answers[at] = job
        return answers

    async def _insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        limits, origin, options = self._limits, self._link.origin, self._link.target.options
        trace = options.wait_aof or options.wait_replicas > 0
        head = (origin, limits.feed_length, limits.max_pending, limits.max_bytes or _UNBOUNDED, trace)
        with self._timed("insert"):
            told = await self._link.run_all("insert", batches.inserts(jobs, *head), confirm=True)
        answers: list[Job | None] = []
        written: list[Job] = []
        for answer in told:
            self._link.wrote(answer[0], origin)
            first = len(answers)
            for one in answer[1:]:
                if isinstance(one, list):
                    answers.append(records.decode(one[0], one[1]))
                elif one == -1:
                    written.append(jobs[len(answers)])
                    answers.append(written[-1])
                else:
                    answers.append(answers[first + one] if one >= 0 else None)
        self._remember(written)
        self._announce(written)
        return answers

    def _remember(self, jobs: Sequence[Job]) -> None:
        """Keeps the specs of jobs that will soon be claimed, as like as not here."""
        specs = self._specs
        specs.update((job.spec.id, job.spec) for job in jobs if len(job.spec.payload.data) <= _SMALL)
        while len(specs) > _REMEMBERED:
            del specs[next(iter(specs))]

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        with self._timed("get"):
            return await self._get(ids)

    async def _get(self, ids: Sequence[str]) -> list[Job | None]:
        key = self._link.key
        commands = []
        for start in range(0, len(ids), batches.ITEMS):
            keys = [key(kind + job_id) for job_id in ids[start : start + batches.ITEMS] for kind in ("spec:", "job:")]
            commands.append((b"MGET", *keys))
        return [job for answer in await self._link.commands(commands) for job in batches.found(answer)]

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        with self._timed("find"):
            if where.ids:
                return await self._find_named(where, after, limit)
            return await self._find(where, after, limit)

    async def _find_named(self, where: Filter, after: str | None, limit: int) -> Page:
        ids = [job_id for job_id in sorted(where.ids, reverse=True) if after is None or job_id < after]
        jobs: list[Job] = []
        for at in range(0, len(ids), batches.ITEMS):
            some = ids[at : at + batches.ITEMS]
            for job_id, job in zip(some, await self._get(some), strict=True):
                if len(jobs) >= limit:
                    return Page(tuple(jobs), jobs[-1].id if jobs else after)
                if job is not None and job.id == job_id and where.matches(job.spec, job.state):
                    jobs.append(job)
        return Page(tuple(jobs), None)

    async def _find(self, where: Filter, after: str | None, limit: int) -> Page:
        selective = bool(where.states or where.types or where.queues or where.labels)
        selective = selective or where.created_from is not None or where.created_before is not None
        chunk = _FIND_CHUNK if selective else min(_FIND_CHUNK, limit + 1)
        wanted = [
            {int(state): True for state in where.states} or False,
            dict.fromkeys(where.types, True) or False,
            dict.fromkeys(where.queues, True) or False,
        ]
        jobs: list[Job] = []
        for _ in range(max(1, _FIND_BUDGET // chunk)):
            start = False if after is None else after
            last, *answer = await self._link.run("find", (where.namespace, start, chunk, *wanted))
            for job in batches.jobs_of(answer):
                if where.matches(job.spec, job.state):
                    if len(jobs) >= limit:
                        return Page(tuple(jobs), jobs[-1].id if jobs else after)
                    jobs.append(job)
            if not last:
                return Page(tuple(jobs), None)
            after = last.decode()
            if len(jobs) >= limit:
                break
        return Page(tuple(jobs), after)

    async def counts(self) -> Counts:
        with self._timed("counts"):
            key = self._link.key
            told, places = await self._link.commands([("HGETALL", key("counts")), ("SMEMBERS", key("places"))])
            numbers = {name: int(value) for name, value in zip(told[::2], told[1::2], strict=True)}
            queues: list[QueueCount] = []
            for start in range(0, len(places), batches.ITEMS):
                some = [place.decode() for place in places[start : start + batches.ITEMS]]
                answer = await self._link.run("depths", some)
                for place, depth, oldest in zip(some, answer[::2], answer[1::2], strict=True):
                    if depth:
                        queues.append(QueueCount(*_names_of(place), depth, int(oldest)))
        states = {state: numbers.get(b"%d" % state, 0) for state in State}
        return Counts(states, tuple(queues), numbers.get(b"size", 0))

    async def ahead(self, job: Job) -> int:
        with self._timed("ahead"):
            spec = job.spec
            found: int = await self._link.run("ahead", (spec.type, spec.priority, job.next_start, spec.id))
            return found

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        origin, limits = self._link.origin, self._limits
        with self._timed("put"):
            parts = batches.puts(jobs, expected, origin, limits.feed_length)
            told = await self._link.run_all("put", parts, confirm=True)
        answers = batches.told([answer[1] for answer in told])
        surplus = False
        for head, _, finished, size in told:
            self._link.wrote(head, origin)
            surplus = finished > limits.max_finished or 0 < limits.max_bytes < size
        self._announce([job for job, stored in zip(jobs, answers, strict=True) if stored] if False in answers else jobs)
        if surplus and self._forgetting is None and self._listener is not None:
            self._forgetting = asyncio.create_task(self._forget_surplus())
        return answers

    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        origin = self._link.origin
        with self._timed("delete"):
            parts = batches.deletes(jobs, origin, self._limits.feed_length)
            told = await self._link.run_all("delete", parts, confirm=True)
        for head, _ in told:
            self._link.wrote(head, origin)
        answers = batches.told([answer[1] for answer in told])
        gone = [job.spec.id for job, deleted in zip(jobs, answers, strict=True) if deleted]
        if gone and self._listener is not None:
            self._listener.on_news(gone)
        return answers

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        origin = self._link.origin
        head = (origin, self._limits.feed_length, session, worker, self.now())
        with self._timed("claim"):
            answers = await self._claim(head, [_wanted(ask, ask.slots) for ask in asks if ask.slots > 0], limit)
            taken = await self._taken([answer[2:] for answer in answers])
        for answer in answers:
            self._link.wrote(answer[0], origin)
        self._announce(taken)
        return taken

    async def _taken(self, answers: Sequence[Sequence[bytes]]) -> list[Job]:
        """Claimed jobs, of their ids and strings. Most specs are known; a plain command reads the others, because what
        goes through a script costs several times as much."""
        pairs = [(answer[at].decode(), answer[at + 1]) for answer in answers for at in range(0, len(answer), 2)]
        known = {job_id: self._specs.pop(job_id, None) for job_id, _ in pairs}
        unknown = [job_id for job_id, spec in known.items() if spec is None]
        key = self._link.key
        commands = [
            ("MGET", *(key("spec:" + job_id) for job_id in unknown[start : start + batches.ITEMS]))
            for start in range(0, len(unknown), batches.ITEMS)
        ]
        read = [data for answer in await self._link.commands(commands) for data in answer] if commands else []
        known.update(
            (job_id, decode_spec(data)) for job_id, data in zip(unknown, read, strict=True) if data is not None
        )
        return [records.decode_with(spec, stored) for job_id, stored in pairs if (spec := known[job_id]) is not None]

    async def _claim(self, head: tuple[object, ...], wanted: list[_Wanted], limit: int) -> list[Any]:
        if len(wanted) == 1:
            job_type, slots, queues = wanted[0]
            room = min(limit, slots)
            sizes = [min(batches.ITEMS, room - at) for at in range(0, room, batches.ITEMS)]
            return await self._link.run_all(
                "claim", [((*head, size, ((job_type, size, queues),)), ()) for size in sizes]
            )
        answers: list[Any] = []
        while wanted and limit > 0:
            size = min(batches.ITEMS, limit)
            answer = await self._link.run("claim", (*head, size, wanted))
            answers.append(answer)
            taken = len(answer) // 2 - 1
            if taken < size:
                break
            limit -= taken
            wanted = [(kind, left, queues) for (kind, _, queues), left in zip(wanted, answer[1], strict=True) if left]
        return answers

    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        with self._timed("due"):
            while True:
                now = self.now()
                following, *ids = await self._link.run("due", (now, limit))
                names = [job_id.decode() for job_id in ids]
                jobs = [job for job in await self._get(names) if job is not None and job.due is not None]
                jobs = [job for job in jobs if job.due is not None and job.due <= now]
                if jobs or not names:
                    return jobs, int(following) if following else None
                # Others moved all of them, or they are leftovers that would stand in the way for ever.
                await self._auditor.check(names)

    async def open_session(self, session: str, ttl: int) -> None:
        await self._link.command("ZADD", self._link.key("sessions"), self.now() + ttl, session)

    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        if not sessions:
            return []
        now = self.now()
        return batches.told([await self._link.run("renew", (now, now + ttl, *sessions))])

    async def close_session(self, session: str) -> None:
        await self._link.run("close_session", (session,))

    async def expired(self, limit: int) -> list[str]:
        key = self._link.key("sessions")
        found = await self._link.command("ZRANGE", key, "-inf", self.now(), "BYSCORE", "LIMIT", 0, limit)
        return [session.decode() for session in found]

    async def held(self, session: str, limit: int) -> list[Job]:
        with self._timed("held"):
            ids = await self._link.command("SRANDMEMBER", self._link.key(f"held:{session}"), limit)
            jobs = await self._get(sorted(job_id.decode() for job_id in ids))
        return [job for job in jobs if job is not None and job.state is State.RUNNING and job.session == session]

    async def head(self) -> int:
        return int(await self._link.command("GET", self._link.key("head")) or 0)

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        if not 0 <= after < _EXACT:
            raise ResumeTokenExpired(_NOT_KEPT)
        with self._timed("changes"):
            end, *answer = await self._link.run("changes", (after, min(limit, _CHANGES)))
        if end < 0:
            raise ResumeTokenExpired(_NOT_KEPT)
        changes = []
        for at in range(0, len(answer), 2):
            job = records.decode(answer[at], answer[at + 1]) if answer[at + 1] else None
            changes.append(Change(decode_spec(answer[at]) if job is None else job.spec, job))
        return changes, end

    async def report(self, updates: Sequence[Update]) -> list[bool]:
        limits = self._limits
        head = (self._link.origin, limits.max_log_lines, limits.max_log_bytes)
        with self._timed("report"):
            answers = batches.told(await self._link.run_all("report", batches.reports(updates, self.now(), *head)))
        if True in answers and self._listener is not None:
            told = [update.job_id for update, kept in zip(updates, answers, strict=True) if kept]
            self._listener.on_output(told)
        return answers

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        key = self._link.key
        with self._timed("outputs"):
            found = await self._link.commands([("HMGET", key("out:" + i), "progress", "start", "end") for i in ids])
        return [
            Output(_decode_progress(progress) if progress else None, int(start or 0), int(end or 0))
            for progress, start, end in found
        ]

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        with self._timed("logs"):
            first, *lines = await self._link.run("logs", (job_id, start, limit))
        told = []
        for offset, line in enumerate(lines, first):
            attempt, severity, message, at = _decode_line(line)
            told.append(LogLine(severity, message, attempt, offset, at))
        return told

    async def audit(self) -> Findings:
        """One pass of the auditor, at full speed: what it found and repaired."""
        return await self._auditor.run()

    async def health(self) -> Health:
        """How the server and the ties to it are now."""
        link, key = self._link, self._link.key
        info, feed, head, oldest = await link.commands(
            [("INFO",), ("XLEN", key("feed")), ("GET", key("head")), ("XRANGE", key("feed"), "-", "+", "COUNT", 1)]
        )
        return Health.of(info, link.pool.server, feed, int(head or 0), oldest, self.stats, link, self._auditor)

    async def _make_room(self, wanted: int) -> bool:
        """Deletes the oldest finished jobs until there is room for so many bytes. False when there was nothing left."""
        size = int(await self._link.command("HGET", self._link.key("counts"), "size") or 0)
        return await self._forget(size + wanted - self._limits.max_bytes, _FORGET_BATCH)

    async def _forget_surplus(self) -> None:
        """Deletes the oldest finished jobs beyond the bounds."""
        limits, key = self._limits, self._link.key
        try:
            while True:
                finished, size = await self._link.commands(
                    [("ZCARD", key("finished")), ("HGET", key("counts"), "size")]
                )
                surplus = max(0, finished - limits.max_finished)
                excess = int(size or 0) - limits.max_bytes if limits.max_bytes else 0
                if surplus == 0 and excess <= 0:
                    return
                if not await self._forget(excess, surplus):
                    return
        except Exception as error:
            log.warning("finished jobs beyond the bounds could not be deleted yet", reason=str(error))
        finally:
            self._forgetting = None

    async def _forget(self, size: int, count: int) -> bool:
        """Deletes the oldest finished jobs: so many, or as many as take so many bytes, whatever is more."""
        names = await self._link.command("ZRANGE", self._link.key("finished"), 0, max(count, _FORGET_BATCH) - 1)
        oldest: list[Job] = []
        for job in await self._get([name.decode() for name in names]):
            if job is None or not job.state.terminal:
                continue
            if len(oldest) >= count and size <= 0:
                break
            oldest.append(job)
            size -= records.size(job.spec)
        return bool(oldest) and True in await self.delete(oldest)

    def _announce(self, written: Sequence[Job]) -> None:
        """Tells the listener what an operation wrote."""
        if written and self._listener is not None:
            self._listener.on_changes(written)
            if any(job.ready for job in written):
                self._listener.on_ready()

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        if self._listener is None:
            raise not_open()
        began = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            self.stats.note(operation, time.perf_counter() - began, failed=failed)


_Wanted = tuple[str, int, list[str] | bool]
_NOT_KEPT = "changes after this position are no longer kept"


def _wanted(ask: Ask, slots: int) -> _Wanted:
    return ask.type, slots, False if ask.queues is None else sorted(ask.queues)


def _names_of(place: str) -> tuple[str, str]:
    """Queue and type of a place (lua/prelude.lua: queue_place)."""
    _, length, rest = place.split(":", 2)
    data = rest.encode()
    return data[int(length) + 1 :].decode(), data[: int(length)].decode()
