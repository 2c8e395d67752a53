"""What an attempt says about itself until it is sent: the latest progress, and log lines within a bound."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from ..model import LogLine, Progress, Severity
from .text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINE = 16 * 1024
"""Bytes of one log line; what is longer is cut, and says so."""
MAX_MESSAGE = 1024
"""Bytes of a progress message."""
MAX_LINES = 1000
MAX_BYTES = 256 * 1024
"""How much may wait to be sent. What comes beyond is dropped, and the drop is logged."""


class Output:
    """A bounded buffer between a handler, in whatever thread, and whoever sends. `notify` is called when there is news.

    A writer adds, then looks whether news were announced; the reader takes the announcement back, then the news. So
    whatever is added is taken by the reader that was notified, or notifies again.
    """

    __slots__ = ("_attempt", "_bytes", "_dropped", "_lock", "_logs", "_notify", "_progress", "announced")

    def __init__(self, attempt: int, notify: Callable[[], None]) -> None:
        self._attempt = attempt
        self._notify = notify
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._logs: list[LogLine] = []
        self._bytes = 0
        self._dropped = 0
        self.announced = False

    def progress(self, current: float, total: float, message: str) -> None:
        """Keeps this report in place of the one before. Raises ValueError when a number is not finite."""
        if not (math.isfinite(current) and math.isfinite(total)):
            raise ValueError("progress must be given in finite numbers")
        self._progress = Progress(float(current), float(total), clean(message, MAX_MESSAGE))
        self._announce()

    def log(self, severity: Severity, message: str) -> None:
        """Adds a line, or counts it as dropped when the buffer is full. Raises ValueError for what is no severity."""
        severity = Severity(severity)
        text = clean(message, MAX_LINE)
        size = len(text.encode())
        with self._lock:
            if len(self._logs) >= MAX_LINES or self._bytes + size > MAX_BYTES:
                self._dropped += 1
            else:
                self._logs.append(LogLine(severity, text, self._attempt))
                self._bytes += size
        self._announce()

    def merge(self, progress: Progress | None, logs: tuple[LogLine, ...]) -> None:
        """Takes over what the same attempt said in another process."""
        if progress is not None:
            self.progress(progress.current, progress.total, progress.message)
        for line in logs:
            self.log(line.severity, line.message)

    def take(self) -> tuple[Progress | None, tuple[LogLine, ...]]:
        """What came since the last take."""
        self.announced = False
        with self._lock:
            progress, self._progress = self._progress, None
            logs, self._logs = self._logs, []
            dropped, self._dropped = self._dropped, 0
            self._bytes = 0
        if dropped:
            text = f"{dropped} log lines were dropped here: they came faster than they could be sent"
            logs.append(LogLine(Severity.WARNING, text, self._attempt))
        return progress, tuple(logs)

    def close(self) -> None:
        """The attempt is over: what a thread that was left behind still says is ignored."""
        self._notify = _nobody

    def _announce(self) -> None:
        if not self.announced:
            self.announced = True
            self._notify()


def _nobody() -> None:
    """Whom a closed output notifies."""
