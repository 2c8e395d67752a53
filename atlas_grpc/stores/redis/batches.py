"""Batches, cut into calls of scripts: what each is told, and what it answers.

A script holds the server up while it runs, so it gets a bounded number of jobs and bytes. The parts of a batch are
sent one behind the other without waiting; each is encoded while the server works on the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import msgpack
from msgspec.structs import replace

from ..codec import encode_spec
from . import records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ...model import Ask, Job, LogLine, Update

ITEMS = 64
"""Jobs in a call of a script."""
_BYTES = 1 << 20
"""Bytes in a call, if it is not for a single job."""

_CLAIMED = 4 * ITEMS

Wanted = tuple[str, int, list[str] | Literal[False]]
"""An ask: the type, slots, and queues or False for all."""
Part = tuple[list[object], list[bytes]]

_encode = msgpack.Encoder().encode


def wanted(asks: Iterable[Ask]) -> list[Wanted]:
    """Those asks that have room for a job."""
    return [(ask.type, ask.slots, False if ask.queues is None else sorted(ask.queues)) for ask in asks if ask.slots > 0]


def claimed_at_once(asks: Iterable[Wanted]) -> int:
    """How many jobs a call claims: it looks at each type and queue that is asked for, so more where these are many."""
    return min(max(ITEMS, sum(len(queues) if queues else 1 for _, _, queues in asks)), _CLAIMED)


class _Cutter:
    """Gathers the fields and documents of a part, until it is full."""

    def __init__(self, *head: object) -> None:
        self._head = head
        self._start()

    def _start(self) -> None:
        self.count = 0
        self.fields: list[object] = []
        self.documents: list[bytes] = []
        self._bytes = 0

    def add(self, fields: tuple[object, ...], *documents: bytes) -> bool:
        """Adds an item. True when the part is full."""
        self.count += 1
        self.fields += fields
        self.documents += documents
        for document in documents:
            self._bytes += len(document)
        return self.count >= ITEMS or self._bytes >= _BYTES

    def part(self) -> Part:
        """The part that was gathered; the next one begins."""
        part = [*self._head, self.count, *self.fields], self.documents
        self._start()
        return part


def inserts(jobs: Sequence[Job], *head: object) -> Iterator[Part]:
    """Calls of `insert`."""
    cutter = _Cutter(*head)
    for job in jobs:
        spec = job.spec
        if cutter.add((spec.id, spec.namespace, spec.request_id), encode_spec(spec), records.encode(job)):
            yield cutter.part()
    if cutter.count:
        yield cutter.part()


def puts(jobs: Sequence[Job], expected: Sequence[int], *head: object) -> Iterator[Part]:
    """Calls of `put`. A job that comes twice in a batch comes in two calls."""
    cutter = _Cutter(*head)
    inside: set[str] = set()
    for job, version in zip(jobs, expected, strict=True):
        job_id = job.spec.id
        if job_id in inside:
            yield cutter.part()
            inside = set()
        inside.add(job_id)
        finished = None if job.finish_time is None else str(job.finish_time)
        if cutter.add((job_id, version, finished), records.encode(job)):
            yield cutter.part()
            inside = set()
    if cutter.count:
        yield cutter.part()


def deletes(jobs: Sequence[Job], *head: object) -> Iterator[Part]:
    """Calls of `delete`. A job that comes twice in a batch comes in two calls."""
    cutter = _Cutter(*head)
    inside: set[str] = set()
    for job in jobs:
        spec = job.spec
        if spec.id in inside:
            yield cutter.part()
            inside = set()
        inside.add(spec.id)
        if cutter.add((spec.id, job.version, spec.namespace, spec.request_id), encode_spec(spec, payload=False)):
            yield cutter.part()
            inside = set()
    if cutter.count:
        yield cutter.part()


def reports(updates: Sequence[Update], now: int, *head: object) -> Iterator[Part]:
    """Calls of `report`."""
    cutter = _Cutter(*head)
    for update in updates:
        documents: list[bytes] = []
        first = len(cutter.documents) + 2
        if update.progress is not None:
            documents.append(_encode(replace(update.progress, time=now)))
        progress = first if documents else 0
        lines = first + len(documents)
        documents += [_line(line, now) for line in update.logs]
        fields = (update.job_id, records.token(update.fence), progress, len(update.logs), lines)
        if cutter.add(fields, *documents):
            yield cutter.part()
    if cutter.count:
        yield cutter.part()


def _line(line: LogLine, now: int) -> bytes:
    """A log line without the head of its array: the script writes that, and the attempt."""
    return _encode((line.severity, line.message, now))[1:]


def told(answers: Sequence[bytes]) -> list[bool]:
    """Which of a batch were done, by the answers to its parts."""
    return [digit == 0x31 for answer in answers for digit in answer]


def jobs_of(answer: Sequence[Any], start: int = 0) -> list[Job]:
    """The jobs of an answer that gives both strings of each, one after the other."""
    return [records.decode(answer[at], answer[at + 1]) for at in range(start, len(answer), 2)]


def found(answers: Sequence[bytes | None]) -> list[Job | None]:
    """The same where a job may be missing."""
    jobs: list[Job | None] = []
    for at in range(0, len(answers), 2):
        spec, stored = answers[at], answers[at + 1]
        jobs.append(None if spec is None or stored is None else records.decode(spec, stored))
    return jobs
