"""What the memory store keeps of a job's own words: its progress, and the last of its log lines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model import LogLine
from .base import Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Progress

_LINE_OVERHEAD = 200
"""Bytes that a kept line takes beside its text."""


class JobOutput:
    """Progress, and log lines up to a number and a size; the oldest go first."""

    __slots__ = ("_end", "_lines", "_max_bytes", "_max_lines", "_progress", "size")

    def __init__(self, max_lines: int, max_bytes: int) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._progress: Progress | None = None
        self._lines: deque[LogLine] = deque()
        self._end = 0
        self.size = 0
        """An estimate of what the lines take, in bytes."""

    def show(self, progress: Progress, now: int) -> None:
        """Replaces the progress."""
        self._progress = replace(progress, time=now)

    def append(self, lines: Iterable[LogLine], attempt: int, now: int) -> None:
        """Adds lines, with the attempt that wrote them."""
        for line in lines:
            self._lines.append(LogLine(line.severity, line.message, attempt, self._end, now))
            self._end += 1
            self.size += _taken(line)
        while len(self._lines) > self._max_lines or (self.size > self._max_bytes and self._lines):
            self.size -= _taken(self._lines.popleft())

    def extent(self) -> Output:
        """The progress, and which lines are kept."""
        return Output(self._progress, self._end - len(self._lines), self._end)

    def read(self, start: int, limit: int) -> list[LogLine]:
        """Kept lines from an offset on."""
        skip = max(0, start - (self._end - len(self._lines)))
        return [self._lines[at] for at in range(skip, min(len(self._lines), skip + limit))]


def _taken(line: LogLine) -> int:
    return _LINE_OVERHEAD + len(line.message)
