"""What an attempt says about itself until it is sent: the latest progress, and log lines within a bound."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from ..model import LogLine, Progress, Severity
from .text import clean, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_LINE = 16 * 1024
"""Bytes of one log line; what is longer becomes several."""
MAX_MESSAGE = 1024
"""Bytes of a progress message."""
MAX_LINES = 1000
MAX_BYTES = 256 * 1024
"""How much may wait to be sent. What is logged beyond is dropped, and the drop is logged; what is printed waits."""


class Output:
    """A bounded buffer between a handler, in whatever thread, and whoever sends. `notify` is called when there is news.

    A writer adds, then looks whether news were announced; the reader takes the announcement back, then the news. So
    whatever is added is taken by the reader that was notified, or notifies again.
    """

    __slots__ = (
        "_attempt",
        "_closed",
        "_dropped",
        "_lock",
        "_logged",
        "_logs",
        "_noted",
        "_notify",
        "_printed",
        "_progress",
        "_relieve",
        "announced",
    )

    def __init__(self, attempt: int, notify: Callable[[], None]) -> None:
        self._attempt = attempt
        self._notify = notify
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._logs: list[LogLine] = []
        self._logged = _Bound()
        self._printed = _Bound()
        self._relieve = _nobody
        self._dropped = 0
        self._noted = 0
        """How many dropped lines the last batch told of."""
        self._closed = False
        self.announced = False

    @property
    def full(self) -> bool:
        """Whether what is printed should wait."""
        return not self._closed and not self._printed.has_room()

    def when_room(self, relieve: Callable[[], None]) -> None:
        """Has that called whenever all was taken, by whoever took it."""
        self._relieve = relieve

    def progress(self, current: float, total: float, message: str) -> None:
        """Keeps this report in place of the one before. Raises ValueError when a number is not finite."""
        if not (math.isfinite(current) and math.isfinite(total)):
            raise ValueError("progress must be given in finite numbers")
        self._progress = Progress(float(current), float(total), clean(message, MAX_MESSAGE))
        self._announce()

    def log(self, severity: Severity, message: str) -> None:
        """Adds a line, or counts it as dropped when the buffer is full. Raises ValueError for what is no severity."""
        severity = Severity(severity)
        if self._closed:
            return
        # One that there is no room for costs nothing: a handler that floods its log must not hold up the event loop.
        fits = self._logged.has_room()
        parts = pieces(clean(message, MAX_BYTES), MAX_LINE) if fits else [message]
        with self._lock:
            for part in parts:
                if fits and self._logged.has_room():
                    self._add(LogLine(severity, part, self._attempt), self._logged)
                else:
                    self._dropped += 1
        self._announce()

    def printed(self, severity: Severity, lines: Iterable[str]) -> None:
        """Adds lines, however full it is: whoever calls it looks at `full` first."""
        if self._closed:
            return
        with self._lock:
            for text in lines:
                for part in pieces(clean(text, MAX_BYTES), MAX_LINE):
                    self._add(LogLine(severity, part, self._attempt), self._printed)
        self._announce()

    def merge(self, progress: Progress | None, logs: tuple[LogLine, ...]) -> None:
        """Takes over what the same attempt said in another process."""
        if progress is not None:
            self.progress(progress.current, progress.total, progress.message)
        for line in logs:
            self.log(line.severity, line.message)

    def take(self) -> tuple[Progress | None, tuple[LogLine, ...]]:
        """What came since the last take, up to `MAX_LINES`; if there is more, there is news again."""
        self.announced = False
        with self._lock:
            progress, self._progress = self._progress, None
            self._noted = 0
            if self._dropped and len(self._logs) < MAX_LINES:
                text = f"{self._dropped} log lines were dropped here: they could not be sent, or not fast enough"
                self._logs.append(LogLine(Severity.WARNING, text, self._attempt))
                self._noted, self._dropped = self._dropped, 0
            logs, self._logs = self._logs[:MAX_LINES], self._logs[MAX_LINES:]
            more = bool(self._logs or self._dropped)
            if not more:
                self._logged.clear()
                self._printed.clear()
        if more:
            self._announce()
        else:
            self._relieve()
        return progress, tuple(logs)

    def give_up(self, lines: int) -> None:
        """So many lines, all of the last take, could not be sent: they are counted as dropped, and the next take tells
        it. Not once it is closed: the outcome waits for what is taken then, and must not wait for ever."""
        if self._closed or not lines:
            return
        with self._lock:
            self._dropped += lines - 1 + self._noted if self._noted else lines

    def close(self) -> None:
        """The attempt is over: what a thread that was left behind still says is ignored."""
        self._closed = True
        self._notify = _nobody
        self._relieve()
        self._relieve = _nobody

    def _add(self, line: LogLine, bound: _Bound) -> None:
        self._logs.append(line)
        bound.lines += 1
        bound.bytes += len(line.message)

    def _announce(self) -> None:
        if not self.announced:
            self.announced = True
            self._notify()


class _Bound:
    """How many lines and characters of a kind wait."""

    __slots__ = ("bytes", "lines")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.lines = self.bytes = 0

    def has_room(self) -> bool:
        return self.lines < MAX_LINES and self.bytes < MAX_BYTES


def _nobody() -> None:
    """Whom a closed output notifies."""
