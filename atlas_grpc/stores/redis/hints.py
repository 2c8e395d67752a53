"""What other store objects on the same data did, told at once: a subscription of its own.

Every script that writes publishes what it did in the same step. Publishing stores nothing, so an idle server costs
nothing and progress reports leave nothing behind; it also promises nothing, so whatever is missed while there is no
connection is made good by telling the engine, afterwards, that anything may have changed. What matters is in the jobs
and the feed. A blocking read of the stream would miss nothing, but it costs each reader a call for every write, and a
stream of progress would grow.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError

from ...errors import AtlasError, Unavailable
from ...observe.logs import get_logger
from ..base import Kind
from .faults import UnfitServer, gone
from .pool import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from ...clock import Clock
    from .url import Target

CHANGED, OUTPUT, EPOCH = 0, 1, 2
_QUIET = 10.0
"""Seconds without a message after which the connection is tried."""
_PAUSES = (0.05, 0.3)

log = get_logger("atlas.store.redis")


class News(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A message: what kind, whose, of which kinds jobs became ready, the last change of the feed, and the ids."""

    kind: int
    origin: str
    ready: list[Kind] | bool
    head: int
    names: list[str]


_decode = msgspec.msgpack.Decoder(News).decode


class Subscriber:
    """Hands `News` to `told`, and calls `missed` after each time that some may have been missed."""

    def __init__(
        self,
        target: Target,
        clock: Clock,
        name: str,
        channel: bytes,
        *,
        told: Callable[[News], None],
        missed: Callable[[], None],
    ) -> None:
        self._target = target
        self._clock = clock
        self._name = name
        self._channel = channel
        self._told = told
        self._missed = missed
        self._task: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None
        self._run = ""

    async def open(self) -> None:
        """Returns when the subscription stands."""
        await self._subscribe()
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._let_go()

    def expect(self, run: str) -> None:
        """The jobs are on that server process now: a subscription at another one is deaf."""
        if self._task is not None and self._connection is not None and self._run != run:
            self._task.cancel()
            self._task = asyncio.create_task(self._keep(anew=True))

    async def _subscribe(self) -> None:
        connection, server = await connect(self._target, self._name)
        if self._task is not None and not self._goes_on():  # the task that does has a connection of its own
            await connection.disconnect(nowait=True)
            raise gone("another task keeps the subscription")
        self._connection, self._run = connection, server.run
        await connection.send_packed_command(connection.pack_command("SUBSCRIBE", self._channel), check_health=False)
        if await self._read(self._target.options.timeout) is None:
            raise gone("no answer to SUBSCRIBE")

    async def _read(self, patience: float) -> Any:
        """The next message; None when there was none for so long."""
        if self._connection is None:
            raise Unavailable("there is no subscription")
        return await self._connection.read_response(disable_decoding=True, timeout=patience, disconnect_on_error=False)

    def _goes_on(self) -> bool:
        """Whether the current task is the one that keeps the subscription. The driver may swallow a cancellation that
        comes while it connects, so being cancelled is not enough to end."""
        return asyncio.current_task() is self._task

    async def _keep(self, *, anew: bool = False) -> None:
        while self._goes_on():
            try:
                if anew:
                    await self._let_go()
                    await self._subscribe()
                    self._missed()
                await self._listen()
            except (RedisError, OSError, AtlasError, UnfitServer) as error:
                log.debug("subscription lost", reason=str(error))
                anew = True
                await self._clock.sleep(random.uniform(*_PAUSES))

    async def _listen(self) -> None:
        while self._goes_on():
            message = await self._read(_QUIET)
            if message is None:
                message = await self._ping()
            if message[0] == b"message":
                self._told(_decode(message[2]))

    async def _ping(self) -> Any:
        connection = self._connection
        if connection is not None:
            await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
        message = await self._read(self._target.options.timeout)
        if message is None:
            raise gone("the subscription stands still")
        return message

    async def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
