"""What a worker and its child processes say to each other: length-prefixed MessagePack over a socket pair."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from ..model import Assignment, Content, Failed, LogLine, Progress, Released
from .loading import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = struct.Struct("!I")

OVERHEAD = 4 * 1024 * 1024
"""How much longer than its largest content a frame may be."""


class Start(msgspec.Struct, tag="start"):
    """Execute this attempt."""

    module: str
    file: str | None
    qualname: str
    assignment: Assignment
    time_left: float | None
    """Seconds."""
    memory_limit: int | None = None
    """Bytes."""
    cpu_limit: float | None = None
    """Seconds."""
    lifespans: tuple[Origin, ...] = ()
    """What must have been entered before."""


class Stop(msgspec.Struct, tag="stop"):
    """The handler of that attempt should stop."""

    fence: int


class Leave(msgspec.Struct, tag="leave"):
    """There is no more work: leave the lifespans, and end."""


class Said(msgspec.Struct, tag="said"):
    """What the handler reported and logged."""

    progress: Progress | None
    logs: tuple[LogLine, ...]


class Ended(msgspec.Struct, tag="ended"):
    """How the attempt ended: exactly one of the first three is set."""

    result: Content | None = None
    failed: Failed | None = None
    released: Released | None = None
    frames: str = ""
    """The traceback for the log; empty when there is nothing to log."""
    spent: bool = False
    """The process should execute no other attempt."""


ToChild = Start | Stop | Leave
ToParent = Said | Ended

_encoder = msgspec.msgpack.Encoder()
to_child = msgspec.msgpack.Decoder(ToChild)
to_parent = msgspec.msgpack.Decoder(ToParent)


def frame(message: ToChild | ToParent) -> bytes:
    """The message as it is sent."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self, longest: int) -> None:
        self._buffer = bytearray()
        self._longest = longest

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The bodies that are complete now. Raises ValueError for a frame that is too long."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._longest:
                raise ValueError("a frame is too long")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body
