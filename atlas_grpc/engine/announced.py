"""What workers announced, as every server of the store knows it: job types, and who serves them.

Types are documents of the store: the latest announcement of a name holds, and stays when its workers are gone, so that
jobs can be submitted while they are away. Who serves a type stands with the sessions. A server keeps a copy of the
types, which the engine refreshes every few seconds; a type that it does not hold is looked for at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..errors import InvalidArgument
from ..model import Record, TypeInfo
from ..stores.base import MAX_INFO

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..clock import Clock
    from ..stores.base import Store

_KIND = "type"
_ASKED_AGAIN = 1.0
"""Seconds after which a name that was not found is looked for again."""
_MOST_UNKNOWN = 10_000


class SessionInfo(Record, frozen=True):
    """What a session tells of its worker. `queues` None means all; `stream` is the latest that the worker opened."""

    worker: str
    slots: int
    types: tuple[str, ...]
    queues: tuple[str, ...] | None = None
    stream: str = ""


class Serving(NamedTuple):
    """A live session that serves a type."""

    session: str
    worker: str
    slots: int
    queues: frozenset[str] | None


_encode = msgspec.msgpack.Encoder().encode
_decode_type = msgspec.msgpack.Decoder(TypeInfo).decode
decode_session = msgspec.msgpack.Decoder(SessionInfo).decode
"""The reverse of `encode_session`."""


def encode_session(info: SessionInfo) -> bytes:
    """For the store. Raises InvalidArgument when that is more than it takes."""
    data = _encode(info)
    if len(data) > MAX_INFO:
        raise InvalidArgument.of("types", f"their names take {len(data)} bytes, and at most {MAX_INFO} are allowed")
    return data


class Announced:
    """The announced types, and the sessions that serve them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._types: dict[str, TypeInfo] = {}
        self._known_as: dict[str, bytes] = {}
        self._missed: dict[str, float] = {}

    def get(self, name: str) -> TypeInfo | None:
        """A type, as far as the copy goes."""
        return self._types.get(name)

    def types(self) -> Sequence[TypeInfo]:
        """All types of the copy, by name."""
        return [self._types[name] for name in sorted(self._types)]

    async def announce(self, infos: Sequence[TypeInfo]) -> None:
        """Makes types known to all servers."""
        documents = {info.name: _encode(info) for info in infos}
        fresh = {name: data for name, data in documents.items() if self._known_as.get(name) != data}
        if fresh:
            await self._store.put_documents(_KIND, fresh)
            self._take(fresh)

    async def look_up(self, names: Collection[str]) -> None:
        """Sees to it that those of these types that exist are in the copy."""
        now = self._clock.monotonic()
        wanted = [name for name in names if name not in self._types and self._missed.get(name, 0.0) <= now]
        if wanted:
            found = await self._store.documents(_KIND, wanted)
            self._take(found)
            if len(self._missed) > _MOST_UNKNOWN:
                self._missed.clear()
            self._missed.update((name, now + _ASKED_AGAIN) for name in wanted if name not in found)

    async def refresh(self) -> None:
        """Reads all types anew. Those that the store has lost, by a failover, it is told again."""
        found = await self._store.documents(_KIND)
        self._take(found)
        lost = {name: data for name, data in self._known_as.items() if name not in found}
        if lost:
            await self._store.put_documents(_KIND, lost)

    def _take(self, documents: Mapping[str, bytes]) -> None:
        for name, data in documents.items():
            self._missed.pop(name, None)
            if self._known_as.get(name) != data:
                self._known_as[name] = data
                self._types[name] = _decode_type(data)

    async def serving(self, job_type: str) -> list[Serving]:
        """The live sessions, of all servers, that serve a type."""
        found: list[Serving] = []
        for session, data in await self._store.sessions():
            if data:
                info = decode_session(data)
                if job_type in info.types:
                    queues = None if info.queues is None else frozenset(info.queues)
                    found.append(Serving(session, info.worker, info.slots, queues))
        return found
