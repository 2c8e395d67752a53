"""One connection, shared by all calls: commands go out in order, answers come back in order.

Why not a pool of connections that calls borrow. A call that is cancelled, because its client went away, would leave an
answer behind in its connection, which then has to be thrown away, and a burst of cancellations would be a storm of new
connections. Here nobody owns the connection: a cancelled call's answer is read and dropped. Commands of one turn of the
event loop leave in one write, and a batch that is cut into several scripts is worked on by the server while the next
part is still being encoded here, and the other way round.

A wire lives once. It ends at the first sign of trouble: an error of the socket, an answer that cannot be parsed, or
none within the time limit. All that wait for answers are then told `Unavailable`, for nobody knows what the server did;
who keeps the wires makes a new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import hiredis
from redis.exceptions import RedisError, ResponseError

from .faults import gone

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from ...errors import Unavailable

Argument = bytes | str | int | float


class Wire:
    """A connection that was made, until it breaks. `lost` is set when it did; `reason` then says why."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._outgoing: list[bytes] = []
        self._wanted = asyncio.Event()
        self._watchdog: asyncio.TimerHandle | None = None
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        self.lost = asyncio.Event()
        self.reason: Unavailable | None = None

    @property
    def load(self) -> int:
        """How many answers are outstanding."""
        return len(self._waiting)

    def post(self, *command: Argument) -> asyncio.Future[Any]:
        """Sends a command in the next turn of the loop. The future never raises: its result may be an exception, a
        RedisError that the server answered or Unavailable when the wire broke."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.reason is not None:
            future.set_result(self.reason)
            return future
        self._outgoing.append(hiredis.pack_command(cast("Any", command)))
        self._waiting.append((self._loop.time(), future))
        self._wanted.set()
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout, self._check)
        return future

    def break_off(self, error: BaseException | str) -> None:
        """Ends the wire."""
        if self.reason is not None:
            return
        self.reason = gone(error)
        self.lost.set()
        if self._watchdog is not None:
            self._watchdog.cancel()
        for task in self._tasks:
            task.cancel()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(self.reason)

    async def close(self) -> None:
        """Ends the wire and waits until its connection is closed, which it is also when that is cancelled."""
        self.break_off("it was closed")
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await self._connection.disconnect(nowait=True)

    def _check(self) -> None:
        """The time limit of all calls: the oldest has waited longest."""
        self._watchdog = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + self._timeout - self._loop.time()
        if left <= 0:
            self.break_off(f"no answer within {self._timeout:g} s")
        else:
            self._watchdog = self._loop.call_later(left, self._check)

    async def _send(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                outgoing, self._outgoing = self._outgoing, []
                await self._connection.send_packed_command(outgoing, check_health=False)
        except (RedisError, OSError) as error:
            self.break_off(error)

    async def _receive(self) -> None:
        read = self._connection.read_response
        try:
            while True:
                try:
                    answer = await read(disable_decoding=True, disconnect_on_error=False)
                except ResponseError as error:
                    answer = error
                _, future = self._waiting.popleft()
                if not future.done():
                    future.set_result(answer)
        except (RedisError, OSError) as error:
            self.break_off(error)
