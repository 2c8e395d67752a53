"""A store object's ties to its server: connections, the clock, the epoch of the feed, the hints of others.

The epoch is the line of descent of the feed. It is a random value in the database and changes when acknowledged writes
may be gone: then a cursor that was given out could point at a change that never was, or skip one that came in its
place, and it is better refused. Who connects finds out, in one script (lua/arrive.lua), by two questions. Is the
server process another one than before, and one that does not keep every write (`appendfsync` is not `always`, or it was
a replica)? And is the last entry of the feed that this object knows of still there, under its number and from whom it
was?

Every write carries the origin of its writer, so that its own news can be told from those of others. The origin changes
whenever a connection is lost: a write whose answer never came may have happened nevertheless, and then its news are
as good as foreign.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from msgspec import msgpack
from redis.exceptions import RedisError

from ...errors import AtlasError, Internal
from ...observe.logs import get_logger
from ..server_clock import ServerClock
from .faults import gone, is_elsewhere, is_unknown_script, refused
from .hints import CHANGED, EPOCH, OUTPUT, News, Subscriber
from .pool import Pool
from .scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...clock import Clock
    from ..base import StoreListener
    from .server import Server
    from .url import Target
    from .wire import Argument, Wire

_SAMPLES = 3
_SAMPLE_PAUSE = 15.0

log = get_logger("atlas.store.redis")

encode = msgpack.Encoder().encode


class Link:
    """Runs commands and scripts for a store."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self.target = target
        self.base = f"{{{target.options.prefix}}}:".encode()
        self.epoch = ""
        self.origin = _origin()
        self.clock = ServerClock(clock)
        self.losses = 0
        """How often a connection was lost."""
        self.arrivals = 0
        """How often this object met another server process than before."""
        self.on_lost: Callable[[], object] = lambda: None
        """Called when a connection was lost, and when writes may be."""
        self._sleep = clock.sleep
        self._known = (0, "")
        self._run = ""
        self._listener: StoreListener | None = None
        name = f"atlas-{target.options.prefix}"
        self.pool = Pool(target, clock, name, arrived=self._arrived, lost=self._lost)
        self._subscriber = Subscriber(
            target, clock, f"{name}-news", self.key("news"), told=self._told, missed=self.doubt
        )
        self._task: asyncio.Task[None] | None = None

    def key(self, name: str) -> bytes:
        return self.base + name.encode()

    async def open(self, listener: StoreListener) -> None:
        """Connects. Raises UnfitServer and Unavailable."""
        try:
            await self.pool.open()
            await self._subscriber.open()
        except RedisError as error:
            await self.close()
            raise refused(error) from error
        except OSError as error:
            await self.close()
            raise gone(error) from error
        except BaseException:
            await self.close()
            raise
        self._listener = listener
        self._task = asyncio.create_task(self._keep_time())

    async def close(self) -> None:
        self._listener = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._subscriber.close()
        await self.pool.close()

    async def command(self, *command: Argument) -> Any:
        """One command."""
        return self._good(await self.pool.pick().post(*command), ())

    async def commands(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Several commands in a row, which may see different states."""
        wire = self.pool.pick()
        answers = [wire.post(*command) for command in commands]
        return [self._good(await answer, ()) for answer in answers]

    async def run(self, script: str, told: Sequence[object], *arguments: bytes) -> Any:
        """One call of a script."""
        (answer,) = await self.run_all(script, [(told, arguments)])
        return answer

    async def run_all(
        self, script: str, parts: Iterable[tuple[Sequence[object], Sequence[bytes]]], *, confirm: bool = False
    ) -> list[Any]:
        """Several calls of a script, one after the other; `parts` may be encoded while the first are under way. With
        `confirm` they are acknowledged in the way that the URL asks for."""
        wire = self.pool.pick()
        source, digest = SCRIPTS[script]
        sent: list[Sequence[Argument]] = []
        answers: list[asyncio.Future[Any]] = []
        for told, arguments in parts:
            if answers:
                await asyncio.sleep(0)
            sent.append((b"1", self.base, encode(told), *arguments))
            answers.append(wire.post(b"EVALSHA", digest, *sent[-1]))
        confirmed = self._confirm(wire) if confirm else []
        found: list[Any] = []
        for position, future in enumerate(answers):
            answer = await future
            if is_unknown_script(answer):
                answer = await wire.post(b"EVAL", source, *sent[position])
                confirmed = self._confirm(wire) if confirm else []
            found.append(answer)
        for number, future in confirmed:
            self._check_confirmed(self._good(await future, ()), number)
        return [self._good(answer, found) for answer in found]

    def _confirm(self, wire: Wire) -> list[tuple[int, asyncio.Future[Any]]]:
        options = self.target.options
        patience = int(options.timeout * 900)
        waits = []
        if options.wait_aof:
            waits.append((1, wire.post("WAITAOF", 1, 0, patience)))
        if options.wait_replicas:
            waits.append((options.wait_replicas, wire.post("WAIT", options.wait_replicas, patience)))
        return waits

    def _check_confirmed(self, answer: Any, number: int) -> None:
        reached = answer[0] if isinstance(answer, list) else answer
        if reached < number:
            self.doubt()
            raise gone("the write was made, but not confirmed as durable in time")

    def _good(self, answer: Any, others: Sequence[Any]) -> Any:
        """An answer that is none of an error."""
        if not isinstance(answer, Exception):
            return answer
        if len(others) > 1:
            self.doubt()
        if isinstance(answer, RedisError):
            if is_elsewhere(answer):
                self.pool.break_off(answer)
            error = refused(answer)
            if isinstance(error, AtlasError):
                raise error from answer
            raise Internal(str(error)) from answer
        raise answer

    def doubt(self) -> None:
        """It is not known what was written, by whom."""
        if self._listener is not None:
            self._listener.on_news(None)
            self._listener.on_ready()

    def wrote(self, head: int, origin: str) -> None:
        """The feed has come so far by a write of this object, which had this origin then."""
        if head > self._known[0]:
            self._known = (head, origin)

    async def _arrived(self, wire: Wire, server: Server) -> None:
        await self._sample(wire, _SAMPLES)
        told = (server.run, server.keeps_every_write, secrets.token_hex(8), *self._known)
        epoch, _head = self._good(
            await wire.post(b"EVALSHA", SCRIPTS["arrive"].digest, b"1", self.base, encode(told)), ()
        )
        self._renew_epoch(epoch.decode())
        if server.run != self._run:
            self._run = server.run
            self.arrivals += 1
            level = log.info if server.aof in {"always", "everysec"} else log.warning
            level(
                "connected to the store", server=server.name, version=".".join(map(str, server.version)), aof=server.aof
            )
        self._subscriber.expect(server.run)
        self.doubt()

    def _renew_epoch(self, epoch: str) -> None:
        if self.epoch not in {"", epoch}:
            self._known = (0, "")
            self.on_lost()
            log.warning("acknowledged writes may be lost: cursors of the feed start anew")
        self.epoch = epoch

    def _lost(self) -> None:
        self.losses += 1
        self.origin = _origin()
        self.on_lost()
        self.doubt()

    def _told(self, news: News) -> None:
        if self._listener is None:
            return
        if news.kind == EPOCH:
            self._renew_epoch(news.names[0])
            self.doubt()
            return
        if news.kind == CHANGED and news.head > self._known[0]:
            self._known = (news.head, news.origin)
        if news.origin == self.origin:
            return
        if news.kind == OUTPUT:
            self._listener.on_output(news.names)
            return
        self._listener.on_news(news.names)
        if news.ready:
            self._listener.on_ready(None if news.ready is True else news.ready)

    async def _keep_time(self) -> None:
        """Samples the server's clock now and then; while it cannot be reached, the last sample does."""
        while True:
            await self._sleep(_SAMPLE_PAUSE)
            try:
                await self._sample(self.pool.pick(), 1)
            except AtlasError as error:
                log.debug("no sample of the store's clock", reason=str(error))

    async def _sample(self, wire: Wire, times: int) -> None:
        for _ in range(times):
            began = self.clock.began()
            seconds, micros = self._good(await wire.post("TIME"), ())
            self.clock.sample(began, int(seconds) * 1_000_000 + int(micros))


def _origin() -> str:
    return secrets.token_hex(4)
