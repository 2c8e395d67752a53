"""What a child process and the programs it starts print, as lines of the job's log.

Each child has a pipe for stdout and one for stderr, which the parent reads in its event loop. Nobody is dropped and
nothing grows: when the attempt's output is full, the pipes are left alone until it was taken, and whoever prints waits
as it does for a slow terminal. Pipes keep what was printed before a process died.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from ..model import Severity
from .output import MAX_LINE
from .text import cut

if TYPE_CHECKING:
    from .output import Output

_CHUNK = 8 * 1024
_STDERR = 2


class Capture:
    """A child's stdout and stderr."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._output: Output | None = None
        self._streams: list[_Stream] = []
        self._paused = False

    def open(self) -> list[int]:
        """The ends that the child gets: its stdout and its stderr."""
        for severity in (Severity.INFO, Severity.WARNING):
            self._streams.append(_Stream(severity))
        return [stream.writer for stream in self._streams]

    def started(self) -> None:
        """The child has its ends."""
        for stream in self._streams:
            stream.close_writer()
            self._loop.add_reader(stream.reader, self._read, stream)

    def begin(self, output: Output | None) -> None:
        """What is printed from now on belongs to that output."""
        self._output = output
        if output is not None:
            output.when_room(self._resume)

    def end(self) -> None:
        """Takes all that was printed so far, a last line without its end too; what follows belongs to nobody."""
        for stream in self._streams:
            left = stream.waiting()
            while left > 0 and (data := stream.read()):
                left -= len(data)
                self._add(stream, stream.lines(data))
            self._add(stream, stream.rest())
        self._output = None
        self._resume()

    def close(self) -> None:
        """Lets go of the pipes; whoever still prints gets a broken pipe."""
        for stream in self._streams:
            self._loop.remove_reader(stream.reader)
            stream.close_writer()
            os.close(stream.reader)
        self._streams = []

    def _read(self, stream: _Stream) -> None:
        if self._output is not None and self._output.full:
            self._paused = True
            for one in self._streams:
                self._loop.remove_reader(one.reader)
            return
        data = stream.read()
        if data == b"":
            self._loop.remove_reader(stream.reader)
            stream.ended = True
        elif data is not None:
            self._add(stream, stream.lines(data))

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            for stream in self._streams:
                if not stream.ended:
                    self._loop.add_reader(stream.reader, self._read, stream)

    def _add(self, stream: _Stream, lines: list[bytes]) -> None:
        if self._output is not None:
            self._output.printed(stream.severity, [line.decode(errors="replace") for line in lines])
        elif lines:  # of a thread that a job left behind
            with suppress(OSError):
                os.write(_STDERR, b"\n".join(lines) + b"\n")


class _Stream:
    """A pipe, and the line that is still to be completed."""

    __slots__ = ("_rest", "_writing", "ended", "reader", "severity", "writer")

    def __init__(self, severity: Severity) -> None:
        self.severity = severity
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.ended = False
        self._writing = True
        self._rest = b""

    def close_writer(self) -> None:
        if self._writing:
            self._writing = False
            os.close(self.writer)

    def waiting(self) -> int:
        """How many bytes are in the pipe."""
        found = fcntl.ioctl(self.reader, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", found)[0])

    def read(self) -> bytes | None:
        """What is there; empty at the end, None when there is nothing now."""
        try:
            return os.read(self.reader, _CHUNK)
        except BlockingIOError:
            return None

    def lines(self, data: bytes) -> list[bytes]:
        """The lines that are complete now; also parts of one that is too long to wait for."""
        *lines, rest = (self._rest + data).split(b"\n")
        lines = [_shown(line) for line in lines]
        while len(rest) > MAX_LINE:
            kept = _shown(rest)
            if len(kept) > MAX_LINE:
                end = cut(kept, MAX_LINE)
                lines.append(kept[:end])
                kept = kept[end:]
            rest = kept
        self._rest = rest
        return lines

    def rest(self) -> list[bytes]:
        """A last line without its end."""
        line, self._rest = _shown(self._rest), b""
        return [line] if line else []


def _shown(line: bytes) -> bytes:
    """What a terminal would show of a line that was drawn over itself, as progress bars do."""
    if b"\r" not in line:
        return line
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]
