"""Keeps connections to the server that takes writes: makes them, checks who is there, makes them again.

A server that is gone, or still loading, or a replica (any more), is tried again after a short pause that grows to a
quarter of a second and is spread by chance, so that jobs flow again within a second of its return without a thousand
clients knocking in step. Meanwhile calls fail at once with `Unavailable`: nothing waits here for something that may
never come.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from ...errors import AtlasError, Unavailable
from ...observe.logs import get_logger
from .faults import RETRY_AFTER, UnfitServer, gone, refused
from .scripts import SCRIPTS
from .server import Server, read_server
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio.connection import AbstractConnection

    from ...clock import Clock
    from .url import Target

_SHORTEST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25
_OBSTACLES = (RedisError, OSError, AtlasError, UnfitServer)

log = get_logger("atlas.store.redis")


async def locate(target: Target) -> dict[str, Any]:
    """Host and port of the master, where Sentinel has to be asked: the first one that answers knows it. The driver's
    own way leaves connections open when it is cancelled."""
    if not target.sentinels:
        return {}
    patience = target.options.connect_timeout
    problem: BaseException | str = f"no Sentinel knows the master {target.service!r}"
    for address in target.sentinels:
        connection = Connection(
            **address._asdict(), **target.sentinel_arguments, socket_connect_timeout=patience, protocol=2
        )
        try:
            async with asyncio.timeout(patience):
                await connection.connect()  # type: ignore[no-untyped-call]  # the driver's own has no annotations
                answer = await ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.service)
        except (RedisError, OSError, TimeoutError) as error:
            problem = error
            continue
        finally:
            await connection.disconnect(nowait=True)
        if answer:
            return {"host": answer[0].decode(), "port": int(answer[1])}
    raise gone(problem)


async def connect(target: Target, name: str) -> tuple[AbstractConnection, Server]:
    """A connection to a server that may be used. Raises UnfitServer, and an error of Atlas or the driver."""
    options = target.options
    connection = target.kind(
        **target.arguments,
        **await locate(target),
        socket_timeout=None,
        socket_connect_timeout=options.connect_timeout,
        client_name=name,
        protocol=2,
    )
    try:
        async with asyncio.timeout(options.connect_timeout + options.timeout):
            await connection.connect()  # type: ignore[no-untyped-call]  # the same
            info = await ask(connection, "INFO")
            server = read_server(info, await ask(connection, "CONFIG", "GET", "appendfsync", optional=True))
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise gone(f"no answer within {options.timeout:g} s") from None
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    try:
        _admit(server, wait_aof=options.wait_aof)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection, server


async def ask(connection: AbstractConnection, *command: str, optional: bool = False) -> Any:
    """One command on a connection that nobody else uses yet. The error that it is answered with is raised, or told."""
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except RedisError as error:
        if optional and connection.is_connected:
            return error
        raise


def _admit(server: Server, *, wait_aof: bool) -> None:
    if server.loading:
        raise Unavailable("the store's server is loading its data", retry_after=RETRY_AFTER)
    server.check(wait_aof=wait_aof)
    if server.role != "master":
        raise Unavailable(f"the store's server is a {server.role}", retry_after=RETRY_AFTER)


class Pool:
    """Some wires to the server. `arrived` is awaited with each new one before it is used."""

    def __init__(
        self,
        target: Target,
        clock: Clock,
        name: str,
        *,
        arrived: Callable[[Wire, Server], Awaitable[None]],
        lost: Callable[[], None],
    ) -> None:
        self._target = target
        self._clock = clock
        self._name = name
        self._arrived = arrived
        self._lost = lost
        self._wires: list[Wire] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._closing = False
        self.server: Server | None = None
        self.connects = 0
        """How often a connection was made."""

    async def open(self) -> None:
        """Returns with the first wire. Raises UnfitServer, or Unavailable when there was none within the time limit."""
        self._closing = False
        options = self._target.options
        until = time.monotonic() + options.timeout
        wire = await self._again(until)
        self._keepers = [asyncio.create_task(self._keep(None if n else wire)) for n in range(options.pool)]

    async def close(self) -> None:
        """Ends all wires."""
        self._closing = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        for wire in list(self._wires):  # of a keeper that was cancelled before it began
            await self._drop(wire)

    @property
    def size(self) -> int:
        """How many wires there are."""
        return sum(wire.reason is None for wire in self._wires)

    @property
    def load(self) -> int:
        """How many answers are outstanding."""
        return sum(wire.load for wire in self._wires)

    def pick(self) -> Wire:
        """The wire with the least to do. Raises Unavailable when there is none."""
        best: Wire | None = None
        for wire in self._wires:
            if wire.reason is None and (best is None or wire.load < best.load):
                best = wire
        if best is None:
            raise Unavailable("the store cannot be reached", retry_after=RETRY_AFTER)
        return best

    def break_off(self, error: BaseException | str) -> None:
        """The server is not the right one any more: all wires are made anew."""
        for wire in list(self._wires):
            wire.break_off(error)

    async def _make(self) -> Wire:
        connection, server = await connect(self._target, self._name)
        wire = Wire(connection, self._target.options.timeout)
        try:
            loads = [wire.post("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values()]
            for load in loads:
                answer = await load
                if isinstance(answer, Exception):
                    raise answer
            await self._arrived(wire, server)
        except BaseException:
            await wire.close()
            raise
        self.server = server
        self.connects += 1
        self._wires.append(wire)
        return wire

    async def _keep(self, wire: Wire | None) -> None:
        """Keeps one wire, for ever."""
        try:
            while True:
                if wire is None:
                    wire = await self._again()
                if self._closing:  # the driver may swallow a cancellation that comes while it connects
                    return
                await wire.lost.wait()
                log.warning("connection to the store lost", reason=str(wire.reason))
                self._lost()
                await self._drop(wire)
                wire = None
        finally:
            if wire is not None:
                await self._drop(wire)

    async def _drop(self, wire: Wire) -> None:
        if wire in self._wires:
            self._wires.remove(wire)
        await wire.close()

    async def _again(self, until: float | None = None) -> Wire:
        """A new wire, however long it takes, or until then."""
        attempt = 0
        while True:
            try:
                return await self._make()
            except _OBSTACLES as error:
                problem = refused(error) if isinstance(error, RedisError) else error
                if until is not None and isinstance(problem, UnfitServer):
                    raise problem from error
                if until is not None and time.monotonic() > until:
                    raise gone(error) from error
                if attempt == 0:
                    level = log.error if isinstance(problem, UnfitServer) else log.warning
                    level("no connection to the store, trying on", reason=str(problem))
            attempt += 1
            await self._clock.sleep(_pause(attempt))


def _pause(attempt: int) -> float:
    longest = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(attempt, 10))
    return random.uniform(longest / 2, longest)
