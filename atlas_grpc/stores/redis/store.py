"""The store itself: each operation of the protocol as calls of scripts. `__init__` tells why it looks like this."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import msgpack

from ... import lifecycle
from ...errors import ResumeTokenExpired
from ...model import LogLine, Progress, Severity, State
from .._carrier import Carrier
from .._documents import check_documents, check_info, possible
from ..base import Change, Counts, Filter, Output, Page, QueueCount, Store, StoreListener, kinds_ready
from ..codec import decode_spec
from . import batches, records
from . import documents as tables
from .audit import Auditor
from .forgetting import Forgetter
from .link import Link
from .server import AOF_MODES, read_server

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ...clock import Clock
    from ...model import Ask, Job, Update
    from ...observe.readings import Reading
    from .audit import Findings
    from .url import Target

_FIND_CHUNK = 200
_FIND_BUDGET = 5_000
"""Jobs looked at in one call of `find`."""
_CHANGES = 100
_EXACT = 2**53
_UNBOUNDED = 2**53
_REMEMBERED = 20_000
_SMALL = 4_096

_decode_progress = msgpack.Decoder(Progress).decode
_decode_line = msgpack.Decoder(tuple[int, Severity, str, int]).decode


class RedisLimits(msgspec.Struct, frozen=True):
    """Where a store says no (unfinished jobs, bytes) or forgets (finished jobs, log lines, old changes).

    The server's `maxmemory` is a bound too, for all that it holds: then inserts are refused as well. `max_bytes` 0 is
    no bound; logs do not count against it.
    """

    max_pending: int = 10_000_000
    max_finished: int = 1_000_000
    max_bytes: int = 0
    max_log_lines: int = 10_000
    max_log_bytes: int = 4 << 20
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
        self._forgetter = Forgetter(
            self._link, self._limits.max_finished, self._limits.max_bytes, get=self._get, delete=self.delete
        )
        self._carrier = Carrier()
        self._recent: dict[str, Job] = {}
        """Ready jobs that this object wrote, as they were stored. Forgotten with every connection that is lost: another
        server may not have them, or other ones under their versions."""
        self._link.on_lost = self._recent.clear

    @property
    def epoch(self) -> str:
        return self._link.epoch

    async def open(self, listener: StoreListener) -> None:
        """Connects. Raises UnfitServer when the server must not be used as it is set up, Unavailable when there is
        none.
        """
        await self._link.open(listener)
        self._listener = listener
        if self._link.target.options.audit:
            self._audits = asyncio.create_task(self._auditor.keep())

    async def close(self) -> None:
        self._listener = None
        if self._audits is not None:
            self._audits.cancel()
            await asyncio.gather(self._audits, return_exceptions=True)
            self._audits = None
        await self._forgetter.close()
        await self._carrier.settle()
        await self._link.close()

    def now(self) -> int:
        return self._link.clock.now()

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        answers: list[Job | None] = await self._carrier.through(self._insert(jobs))
        while None in answers and self._limits.max_bytes:
            refused = [at for at, job in enumerate(answers) if job is None]
            if not await self._forgetter.make_room(sum(records.size(jobs[at].spec) for at in refused)):
                break
            again = await self._carrier.through(self._insert([jobs[at] for at in refused]))
            for at, job in zip(refused, again, strict=True):
                answers[at] = job
        return answers

    async def _insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        limits, origin, options = self._limits, self._link.origin, self._link.target.options
        trace = options.wait_aof or options.wait_replicas > 0
        head = (origin, limits.feed_length, limits.max_pending, limits.max_bytes or _UNBOUNDED, trace)
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
        self._announce(written)
        return answers

    def _remember(self, jobs: Sequence[Job]) -> None:
        """Keeps records that will be claimed soon, as like as not here."""
        recent = self._recent
        recent.update((job.spec.id, job) for job in jobs if len(job.spec.payload.data) <= _SMALL)
        while len(recent) > _REMEMBERED:
            del recent[next(iter(recent))]

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        return await self._get(ids)

    async def _get(self, ids: Sequence[str]) -> list[Job | None]:
        key = self._link.key
        commands = []
        for start in range(0, len(ids), batches.ITEMS):
            keys = [key(kind + job_id) for job_id in ids[start : start + batches.ITEMS] for kind in ("spec:", "job:")]
            commands.append((b"MGET", *keys))
        return [job for answer in await self._link.commands(commands) for job in batches.found(answer)]

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
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
        spec = job.spec
        found: int = await self._link.run("ahead", (spec.type, spec.priority, job.next_start, spec.id))
        return found

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        return await self._carrier.through(self._put(jobs, expected))

    async def _put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        origin, limits = self._link.origin, self._limits
        parts = batches.puts(jobs, expected, origin, limits.feed_length)
        told = await self._link.run_all("put", parts, confirm=True)
        answers = batches.told([answer[1] for answer in told])
        for head, _, finished, size in told:
            self._link.wrote(head, origin)
            self._forgetter.notice(finished, size)
        self._announce([job for job, stored in zip(jobs, answers, strict=True) if stored] if False in answers else jobs)
        return answers

    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        return await self._carrier.through(self._delete(jobs))

    async def _delete(self, jobs: Sequence[Job]) -> list[bool]:
        origin = self._link.origin
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
        return await self._carrier.through(self._claim_and_announce(session, worker, asks, limit))

    async def _claim_and_announce(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        origin = self._link.origin
        now = self.now()
        head = (origin, self._limits.feed_length, session, worker, now)
        answers = await self._claim(head, batches.wanted(asks), limit)
        taken = await self._taken(answers, session, worker, now)
        for answer in answers:
            self._link.wrote(answer[0], origin)
        self._announce(taken)
        return taken

    async def _taken(self, answers: Sequence[list[Any]], session: str, worker: str, now: int) -> list[Job]:
        """The jobs that were claimed. Most were written here, and then their records are at hand; others are read, by a
        plain command, because what goes through a script costs several times as much."""
        taken: dict[str, Job | None] = {}
        fences: dict[str, int] = {}
        recent = self._recent
        for _, _, first, *names in answers:
            for number, at in enumerate(range(0, len(names), 2)):
                job_id, fence = names[at].decode(), int(first) + number
                job = recent.pop(job_id, None)
                fences[job_id] = fence
                known = job is not None and job.version + 1 == names[at + 1]
                taken[job_id] = (
                    lifecycle.started(job, now, session=session, worker=worker, fence=fence) if job and known else None
                )
        unknown = [job_id for job_id, job in taken.items() if job is None]
        for job_id, job in zip(unknown, await self._get(unknown), strict=True):
            taken[job_id] = job if job is not None and lifecycle.holds(job, fences[job_id]) else None
        return [job for job in taken.values() if job is not None]

    async def _claim(self, head: tuple[object, ...], wanted: list[batches.Wanted], limit: int) -> list[Any]:
        most = batches.claimed_at_once(wanted)
        if len(wanted) == 1:
            job_type, slots, queues = wanted[0]
            room = min(limit, slots)
            sizes = [min(most, room - at) for at in range(0, room, most)]
            return await self._link.run_all(
                "claim", [((*head, size, ((job_type, size, queues),)), ()) for size in sizes]
            )
        answers: list[Any] = []
        while wanted and limit > 0:
            size = min(most, limit)
            answer = await self._link.run("claim", (*head, size, wanted))
            answers.append(answer)
            taken = (len(answer) - 3) // 2
            if taken < size:
                break
            limit -= taken
            wanted = [(kind, left, queues) for (kind, _, queues), left in zip(wanted, answer[1], strict=True) if left]
        return answers

    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        jobs, following, leftovers = await self._due(limit)
        if leftovers and not jobs:
            # Others moved all of them just now, or they are leftovers that would stand in the way for ever.
            await self._auditor.check(leftovers)
            jobs, following, _ = await self._due(limit)
        return jobs, following

    async def _due(self, limit: int) -> tuple[list[Job], int | None, list[str]]:
        """Also the ids that the timers named."""
        now = self.now()
        following, *ids = await self._link.run("due", (now, limit))
        names = [job_id.decode() for job_id in ids]
        found = await self._get(names)
        jobs = [job for job in found if job is not None and job.due is not None and job.due <= now]
        return jobs, int(following) if following else None, names

    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        check_info(info)
        await self._link.run("open_session", (session, self.now() + ttl), info)

    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        if not sessions:
            return []
        now = self.now()
        return batches.told([await self._link.run("renew", (now, now + ttl, *sessions))])

    async def sessions(self) -> list[tuple[str, bytes]]:
        answer = await self._link.run("sessions", (self.now(),))
        return sorted((name.decode(), info) for name, info in zip(answer[::2], answer[1::2], strict=True))

    async def close_session(self, session: str) -> None:
        await self._link.run("close_session", (session,))

    async def expired(self, limit: int) -> list[str]:
        key = self._link.key("sessions")
        found = await self._link.command("ZRANGE", key, "-inf", self.now(), "BYSCORE", "LIMIT", 0, limit)
        return [session.decode() for session in found]

    async def held(self, session: str, limit: int) -> list[Job]:
        ids = await self._link.command("SRANDMEMBER", self._link.key(f"held:{session}"), limit)
        jobs = await self._get(sorted(job_id.decode() for job_id in ids))
        return [job for job in jobs if job is not None and job.state is State.RUNNING and job.session == session]

    async def head(self) -> int:
        return int(await self._link.command("GET", self._link.key("head")) or 0)

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        if not 0 <= after < _EXACT:
            raise ResumeTokenExpired(_NOT_KEPT)
        end, *answer = await self._link.run("changes", (after, min(limit, _CHANGES)))
        if end < 0:
            raise ResumeTokenExpired(_NOT_KEPT)
        changes = []
        for at in range(0, len(answer), 2):
            job = records.decode(answer[at], answer[at + 1]) if answer[at + 1] else None
            changes.append(Change(decode_spec(answer[at]) if job is None else job.spec, job))
        return changes, end

    async def report(self, updates: Sequence[Update]) -> list[bool]:
        return await self._carrier.through(self._report(updates))

    async def _report(self, updates: Sequence[Update]) -> list[bool]:
        limits = self._limits
        head = (self._link.origin, limits.max_log_lines, limits.max_log_bytes)
        answers = batches.told(await self._link.run_all("report", batches.reports(updates, self.now(), *head)))
        if True in answers and self._listener is not None:
            told = [update.job_id for update, kept in zip(updates, answers, strict=True) if kept]
            self._listener.on_output(told)
        return answers

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        key = self._link.key
        found = await self._link.commands([("HMGET", key("out:" + i), "progress", "start", "end") for i in ids])
        return [
            Output(_decode_progress(progress) if progress else None, int(start or 0), int(end or 0))
            for progress, start, end in found
        ]

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        first, *lines = await self._link.run("logs", (job_id, start, limit))
        told = []
        for offset, line in enumerate(lines, first):
            attempt, severity, message, at = _decode_line(line)
            told.append(LogLine(severity, message, attempt, offset, at))
        return told

    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        check_documents(kind, documents)
        if documents:
            await tables.put(self._link, kind, documents)

    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        return await tables.get(self._link, kind, possible(kind, keys))

    async def audit(self) -> Findings:
        """One pass of the auditor, at full speed: what it found and repaired."""
        return await self._auditor.run()

    def vitals(self) -> Mapping[str, Reading]:
        if self._listener is None:
            return {}
        pool = self._link.pool
        return {
            "atlas_redis_connections": pool.size,
            "atlas_redis_calls_in_flight": pool.load,
            "atlas_redis_connects": pool.connects,
            "atlas_redis_losses": self._link.losses,
            "atlas_redis_audits": self._auditor.passes,
            "atlas_redis_audit_repairs": self._auditor.repaired,
        }

    async def examine(self) -> Mapping[str, Reading]:
        link, key = self._link, self._link.key
        info, entries, head, oldest = await link.commands(
            [("INFO",), ("XLEN", key("feed")), ("GET", key("head")), ("XRANGE", key("feed"), "-", "+", "COUNT", 1)]
        )
        known = link.pool.server
        server = read_server(info, None if known is None else [b"appendfsync", known.aof.encode()])
        newest = int(head or 0)
        # An entry is named by the last of its changes.
        first = int(oldest[0][0].partition(b"-")[0]) if oldest else newest + 1
        told: dict[str, Reading] = {
            "atlas_redis_memory_bytes": server.used_memory,
            "atlas_redis_clients": server.clients,
            "atlas_redis_aof": {mode: mode == server.aof for mode in AOF_MODES},
            "atlas_redis_persistence_ok": {"aof": server.aof_ok, "snapshot": server.snapshot_ok},
            "atlas_redis_feed_entries": entries,
            "atlas_redis_feed_changes": newest - first + 1,
        }
        if server.max_memory:
            told["atlas_redis_memory_limit_bytes"] = server.max_memory
        return told

    def _announce(self, written: Sequence[Job]) -> None:
        """Tells the listener what an operation wrote."""
        if written and self._listener is not None:
            self._listener.on_changes(written)
            ready = [job for job in written if job.ready]
            if ready:
                self._remember(ready)
                self._listener.on_ready(kinds_ready(ready))


_NOT_KEPT = "changes after this position are no longer kept"


def _names_of(place: str) -> tuple[str, str]:
    """Queue and type of a place (lua/prelude.lua: queue_place)."""
    _, length, rest = place.split(":", 2)
    data = rest.encode()
    return data[int(length) + 1 :].decode(), data[: int(length)].decode()
