"""Server streams over HTTP: lines of JSON as grpc-gateway writes them, or Server-Sent Events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from .failures import error_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

_encode = msgspec.json.encode
_LATER = 24 * 3600 * 1000
"""Milliseconds until a browser may ask again for what has ended."""
_BREAKS = ("\n", "\r", "\0")


class Position(NamedTuple):
    """Where the messages of a stream carry `resume_token` and `heartbeat`."""

    holder: str
    """The singular field whose message has them; empty when it is the streamed message itself."""
    heartbeat: bool
    """Whether there is a `heartbeat` beside the token."""

    def of(self, message: Any) -> tuple[str, bool]:
        """The resume token of a message, and whether it is a heartbeat."""
        held = getattr(message, self.holder) if self.holder else message
        return held.resume_token, self.heartbeat and held.heartbeat


def find_position(descriptor: Descriptor) -> Position | None:
    """Where the resume token of a streamed message is: in itself or in one of its fields."""
    if "resume_token" in descriptor.fields_by_name:
        return Position("", "heartbeat" in descriptor.fields_by_name)
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and not field.is_repeated and "resume_token" in inner.fields_by_name:
            return Position(field.name, "heartbeat" in inner.fields_by_name)
    return None


class Framing(Protocol):
    """How a stream is written."""

    content_type: bytes

    def message(self, message: Message) -> bytes: ...

    def error(self, status: Status) -> bytes: ...

    def end(self) -> bytes: ...


class Lines:
    """`{"result": …}` a line; a status after the first message is a last `{"error": …}` line."""

    content_type = b"application/x-ndjson"

    def __init__(self, show: Callable[[Message], object]) -> None:
        self._show = show

    def message(self, message: Message) -> bytes:
        return _encode({"result": self._show(message)}) + b"\n"

    def error(self, status: Status) -> bytes:
        return _encode({"error": error_object(status)}) + b"\n"

    def end(self) -> bytes:
        return b""


class Events:
    """Server-Sent Events. `id` is the resume token, so that a browser that reconnects resumes; heartbeats are comments.

    A status is the event `error`. The good end is the event `end`: without it a page cannot tell it from a cut. An
    `EventSource` that nobody closes then connects again whatever happens, every few seconds unless it is told to wait.
    """

    content_type = b"text/event-stream"

    def __init__(self, show: Callable[[Message], object], position: Position | None) -> None:
        self._show = show
        self._position = position

    def message(self, message: Message) -> bytes:
        token, heartbeat = self._position.of(message) if self._position else ("", False)
        head = f"id: {token}\n".encode() if token and not any(one in token for one in _BREAKS) else b""
        if heartbeat:
            return b": hb\n" + head + b"\n"
        return head + b"data: " + _encode(self._show(message)) + b"\n\n"

    def error(self, status: Status) -> bytes:
        return b"event: error\ndata: " + _encode(error_object(status)) + b"\n\n"

    def end(self) -> bytes:
        return b"event: end\ndata: {}\nretry: %d\n\n" % _LATER
