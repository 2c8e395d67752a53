"""Lines to a stream from a thread of their own, so that a reader that stands still stops nobody but that thread."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 64 * 1024


class LineWriter:
    """Writes lines in order. `write` never waits for the stream: what does not fit the buffer is dropped and counted.

    A stream with a file descriptor is written to directly: a thread that is stuck in a buffered stream holds its lock,
    and the interpreter cannot end before that is given back.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        max_lines: int = 10_000,
        max_bytes: int = 8 << 20,
        on_drop: Callable[[int], bytes] | None = None,
    ) -> None:
        """`on_drop(n)` makes the line that says how many were dropped since it last did."""
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._accepted = 0
        self._written = 0
        self._unreported = 0
        self.dropped = 0
        """How many lines were dropped in all."""
        self._closing = False
        # Reentrant: a signal handler or a finalizer may log in the middle of `write`.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name="atlas-log-writer", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Takes a line (with its newline), or drops it when the buffer is full or the writer closed."""
        with self._changed:
            if self._closing or len(self._lines) >= self._max_lines or self._bytes + len(line) > self._max_bytes:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._accepted += 1
            if len(self._lines) == 1:
                self._changed.notify_all()

    def flush(self, timeout: float = 2.0) -> bool:
        """Waits until all lines taken so far were written, at most `timeout` seconds; whether they were."""
        with self._changed:
            goal = self._accepted
            return self._changed.wait_for(lambda: self._written >= goal, timeout)

    def close(self, timeout: float = 2.0) -> bool:
        """Takes no more lines and waits until the rest was written, at most `timeout` seconds; whether it was."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while chunk := self._next():
            count, content = chunk
            lost = not self._put(content)
            with self._changed:
                self._written += count
                if lost:
                    self.dropped += count
                    self._unreported += count
                self._changed.notify_all()

    def _next(self) -> tuple[int, bytes] | None:
        """The lines to write next, with their number; waits for one. None when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closing)
            if not self._lines:
                return None
            taken: list[bytes] = []
            size = 0
            while self._lines and size < _CHUNK:
                line = self._lines.popleft()
                taken.append(line)
                size += len(line)
            self._bytes -= size
            count = len(taken)
            if self._unreported and self._on_drop is not None:
                taken.append(self._on_drop(self._unreported))
                self._unreported = 0
        return count, b"".join(taken)

    def _put(self, content: bytes) -> bool:
        """Writes it all, however long that takes; False when the stream does not take it any more."""
        try:
            if self._descriptor is None:
                self._stream.write(content.decode("utf-8"))
                self._stream.flush()
            else:
                _write_all(self._descriptor, content)
        except (OSError, ValueError):
            return False
        return True


def _descriptor(stream: TextIO) -> int | None:
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Whoever shares the descriptor made it non-blocking.
            select.select((), (descriptor,), ())
