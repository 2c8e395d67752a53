"""The ready index of the memory store: which jobs may be claimed, in which order, for a type in any queue or in some.

A line holds the ready jobs of one priority, longest ready first, as a heap with lazy deletion: an entry counts only
while the job is still ready since that instant. Every ready job stands in two lines, that of its type and that of its
(type, queue), so that a claim never looks at more lines than it asks for, however many queues there are.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from .base import QueueCount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..model import Ask, Job

_AHEAD_BOUND = 10_000
"""How far `ahead` counts."""

_Entry = tuple[int, str]


class _Line:
    __slots__ = ("depth", "heap")

    def __init__(self) -> None:
        self.heap: list[_Entry] = []
        self.depth = 0


_Place = tuple[str, str | None]


class ReadyIndex:
    """Ready jobs of `jobs`, a live mapping by id that the owner keeps."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs
        self._lines: dict[_Place, dict[int, _Line]] = {}

    def add(self, job: Job) -> None:
        """The job became ready."""
        spec = job.spec
        entry = (job.next_start, spec.id)
        for place in ((spec.type, None), (spec.type, spec.queue)):
            lines = self._lines.get(place)
            if lines is None:
                lines = self._lines[place] = {}
            line = lines.get(spec.priority)
            if line is None:
                line = lines[spec.priority] = _Line()
            line.depth += 1
            heapq.heappush(line.heap, entry)
            if len(line.heap) > 2 * line.depth + 64:
                line.heap = [e for e in line.heap if self._counts(e)]
                heapq.heapify(line.heap)

    def remove(self, job: Job) -> None:
        """The job, ready until now, is no longer."""
        spec = job.spec
        for place in ((spec.type, None), (spec.type, spec.queue)):
            lines = self._lines[place]
            line = lines[spec.priority]
            line.depth -= 1
            if line.depth == 0:
                del lines[spec.priority]
                if not lines:
                    del self._lines[place]

    def take(self, asks: Sequence[Ask]) -> Iterator[Job]:
        """Ready jobs that match the asks, best first, no more per ask than its slots. The caller makes each of them
        unready before it takes the next."""
        if not self._lines:
            return
        heads: list[tuple[int, _Entry, int, _Line]] = []
        left = [ask.slots for ask in asks]
        for index, ask in enumerate(asks):
            for queue in (None,) if ask.queues is None else ask.queues:
                for priority, line in self._lines.get((ask.type, queue), {}).items():
                    heads.append((-priority, line.heap[0], index, line))
        heapq.heapify(heads)
        while heads:
            order, entry, index, line = heads[0]
            if left[index] <= 0:
                heapq.heappop(heads)
                continue
            # Two asks may share a line: then the head that one of them saw may be gone.
            if line.heap and line.heap[0] == entry:
                heapq.heappop(line.heap)
                if self._counts(entry):
                    left[index] -= 1
                    yield self._jobs[entry[1]]
            if line.heap:
                heapq.heapreplace(heads, (order, line.heap[0], index, line))
            else:
                heapq.heappop(heads)

    def ahead(self, job: Job) -> int:
        """How many jobs of the same type are taken before this one by who serves any queue; counts up to a bound."""
        spec = job.spec
        found = 0
        for priority, line in self._lines.get((spec.type, None), {}).items():
            if priority > spec.priority:
                found += line.depth
            elif priority == spec.priority:
                found += self._before(line.heap, (job.next_start, spec.id))
        return found

    def _before(self, heap: list[_Entry], mine: _Entry) -> int:
        # A set, because a job that was taken and given back within a microsecond may have two equal entries.
        found: set[_Entry] = set()
        look = [0]
        while look and len(found) < _AHEAD_BOUND:
            at = look.pop()
            if at < len(heap) and heap[at] < mine:
                if self._counts(heap[at]):
                    found.add(heap[at])
                look += (2 * at + 1, 2 * at + 2)
        return len(found)

    def counts(self) -> list[QueueCount]:
        """Depth and oldest instant of each queue that has ready jobs."""
        found = []
        for (job_type, queue), lines in self._lines.items():
            if queue is not None:
                depth = sum(line.depth for line in lines.values())
                found.append(QueueCount(queue, job_type, depth, min(self._oldest(line) for line in lines.values())))
        return found

    def _oldest(self, line: _Line) -> int:
        while not self._counts(line.heap[0]):
            heapq.heappop(line.heap)
        return line.heap[0][0]

    def _counts(self, entry: _Entry) -> bool:
        job = self._jobs.get(entry[1])
        return job is not None and job.ready and job.next_start == entry[0]
