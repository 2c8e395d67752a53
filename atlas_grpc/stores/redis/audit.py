"""The auditor: a slow pass over all that is stored, which puts indexes right that do not agree with the jobs.

Each script is atomic, in memory, in the append-only file and towards replicas, so a crash or a failover loses whole
steps and leaves no job half indexed. What can is a hand that deletes or restores keys, a server that evicted after all,
or a fault of ours. The jobs are the truth; every index follows from them and can be made anew:

- a job is missing from the listing, from its lines, among the timers, the finished, the running of its session, or its
  request id is not known: it is put there;
- a running job's session is not there: the session counts as expired, so that the job is rescued;
- an entry has no job, or one that does not belong there: it is dropped, as are progress and logs without a job, and the
  info of a session that is not there;
- of a job one of the two strings is gone: it is past help, and what is left of it is removed;
- the token counter or the counts by state went back: they are set to what the jobs say. Counting needs a
  pass during which nothing is written; on a busy server it waits for a quiet one.

All repairs are scripts that look and act in one step, so the auditor may run while servers work, and on several of them
at once. A pass looks at a bounded number of keys a second. There is one after each start, after each change of the
server process, and once in a while.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import AtlasError
from ...model import State
from ...observe.logs import get_logger
from ..codec import decode_spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ...clock import Clock
    from .link import Link

_BATCH = 100
_RATE = 2_000
"""Keys and entries a second in the background."""
_LOOK = 5.0
"""Seconds between two looks whether a pass is due."""
_ENTRIES = {
    "list": "ZSCAN",
    "ready": "ZSCAN",
    "prios": "ZSCAN",
    "due": "ZSCAN",
    "finished": "ZSCAN",
    "sessions": "ZSCAN",
    "held": "SSCAN",
    "places": "SSCAN",
    "names": "HSCAN",
}
"""How the entries of an index are read, by the first part of its key."""

log = get_logger("atlas.store.redis")


class Findings(msgspec.Struct):
    """What a pass looked at and repaired."""

    jobs: int = 0
    entries: int = 0
    namespaces: set[str] = msgspec.field(default_factory=set)
    repaired: Counter[str] = msgspec.field(default_factory=Counter)
    """How many faults of each kind. `name taken` counts what cannot be repaired: two jobs with one request id."""
    counted: bool = False
    """Whether the counts could be compared: nothing was written meanwhile."""
    seconds: float = 0.0


class Auditor:
    """Audits what a link leads to."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self.passes = 0
        self.repaired = 0
        """Faults repaired by all passes."""
        self.last: Findings | None = None

    async def keep(self) -> None:
        """Audits for ever: when another server process is met, and as often as the URL says."""
        seen = 0
        at = self._clock.monotonic()
        while True:
            if self._link.arrivals != seen or self._clock.monotonic() - at >= self._link.target.options.audit:
                seen, at = self._link.arrivals, self._clock.monotonic()
                try:
                    await self.run(rate=_RATE)
                except AtlasError as error:
                    log.warning("the audit of the store was cut short", reason=str(error))
            await self._clock.sleep(_LOOK)

    async def run(self, *, rate: float = float("inf")) -> Findings:
        """One pass, looking at no more than `rate` keys and entries a second."""
        found = Findings()
        began = time.monotonic()
        head = int(await self._link.command("GET", self._link.key("head")) or 0)
        async for keys in self._keys():
            by_kind: dict[str, list[str]] = {}
            for key in keys:
                kind, _, rest = key.partition(":")
                by_kind.setdefault(kind, []).append(rest)
            await self._check(sorted({*by_kind.pop("spec", ()), *by_kind.pop("job", ())}), found)
            for kind in ("out", "log", "info"):
                await self._drop(kind, "", by_kind.pop(kind, ()), found)
            for kind, rests in by_kind.items():
                for rest in rests:
                    await self._check_index(kind, rest, found, rate)
            await self._breathe(len(keys), rate)
        await self._recount(head, found)
        found.seconds = time.monotonic() - began
        self._note(found)
        return found

    async def check(self, ids: Sequence[str]) -> None:
        """Looks at jobs that somebody stumbled over."""
        found = Findings()
        await self._check(ids, found)
        self.repaired += found.repaired.total()

    def _note(self, found: Findings) -> None:
        self.passes += 1
        self.repaired += found.repaired.total()
        self.last = found
        if found.repaired:
            log.warning("the audit of the store found faults", jobs=found.jobs, entries=found.entries, **found.repaired)

    async def _keys(self) -> AsyncIterator[list[str]]:
        """All our keys, without the prefix."""
        cursor = b"0"
        while True:
            cursor, keys = await self._link.command("SCAN", cursor, "MATCH", self._link.base + b"*", "COUNT", _BATCH)
            yield [key[len(self._link.base) :].decode() for key in keys]
            if cursor == b"0":
                return

    async def _check(self, ids: Sequence[str], found: Findings) -> None:
        link = self._link
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            specs = await link.command("MGET", *(link.key("spec:" + job_id) for job_id in some))
            told: list[object] = []
            for job_id, data in zip(some, specs, strict=True):
                spec = None if data is None else decode_spec(data)
                told += (job_id, False, False) if spec is None else (job_id, spec.namespace, spec.request_id)
                if spec is not None:
                    found.namespaces.add(spec.namespace)
            answer = await link.run("audit_jobs", told)
            found.jobs += len(some)
            for kind, number in zip(answer[::2], answer[1::2], strict=True):
                found.repaired[kind.decode()] += number

    async def _check_index(self, kind: str, rest: str, found: Findings, rate: float) -> None:
        scan = _ENTRIES.get(kind)
        if scan is None:
            return
        key = self._link.key(f"{kind}:{rest}" if rest else kind)
        cursor = b"0"
        while True:
            cursor, entries = await self._link.command(scan, key, cursor, "COUNT", _BATCH)
            await self._drop(kind, rest, [entry.decode() for entry in entries[:: 1 if scan == "SSCAN" else 2]], found)
            if cursor == b"0":
                return
            await self._breathe(_BATCH, rate)

    async def _drop(self, kind: str, rest: str, entries: Sequence[str], found: Findings) -> None:
        for start in range(0, len(entries), _BATCH):
            some = entries[start : start + _BATCH]
            found.entries += len(some)
            found.repaired["entry"] += await self._link.run("audit_entries", (kind, rest, *some))
        if not found.repaired["entry"]:
            del found.repaired["entry"]

    async def _recount(self, began: int, found: Findings) -> None:
        total: dict[Any, int] = {**dict.fromkeys(map(int, State), 0), "size": 0}
        for namespace in sorted(found.namespaces):
            after = ""
            while True:
                answer = await self._link.run("audit_counts", (began, namespace, after, False))
                if answer[0] == -1:
                    return
                for state in State:
                    total[int(state)] += answer[state]
                total["size"] += answer[6]
                if not answer[0]:
                    break
                after = answer[0].decode()
        (wrong,) = await self._link.run("audit_counts", (began, "", "", total))
        found.counted = wrong >= 0
        if wrong > 0:
            found.repaired["count"] += wrong

    async def _breathe(self, looked_at: int, rate: float) -> None:
        if looked_at and rate != float("inf"):
            await self._clock.sleep(looked_at / rate)
