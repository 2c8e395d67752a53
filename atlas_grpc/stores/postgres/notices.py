"""Hints between servers: who wrote what, by NOTIFY, and a look at the head of the feed for when that is lost.

Why it looks like this. A NOTIFY inside a transaction that writes jobs takes a lock on the whole cluster until it has
committed: writers of all servers then commit one after the other. So a server gathers what it has to say for some
milliseconds and says it in a transaction of its own, on the connection that listens anyway, without waiting for the
disk. What does not fit into a notice (about 8 kB) is told as "something". A notice can be lost with its connection,
and nobody is told: so a server that listens again after a pause assumes that everything may have changed, and once a
second each looks whether the feed has moved by more than it was told. An idle server says nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import msgspec

from ...errors import AtlasError
from ..base import Kind, StoreListener
from .database import connect
from .faults import DRIVER_ERRORS, log

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

    from ...clock import Clock
    from .database import Database
    from .feed import Feed

_GATHER = 0.01
_MOST_IDS = 180
"""Ids of 36 characters with their quotes, so that a notice stays below its size."""
_MOST_BYTES_OF_KINDS = 600
_BLUR = 0.05
"""Seconds between two times that listeners are told that they do not know."""
_POLL = 1.0
_SURE = 10.0
"""Seconds after which a look at a moved head counts although notices told it all."""
_BEAT = 10.0
_LONGEST_PAUSE = 1.0


class Notice(msgspec.Struct, array_like=True):
    """What is said. None: some, too many to name."""

    sender: str
    xid: int
    ready: list[Kind] | None
    changed: list[str] | None
    outputs: list[str] | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Notice).decode


class Notices:
    """Says and hears. `open` it with the listener, and run `say`, `hear` and `poll`."""

    def __init__(self, database: Database, clock: Clock, feed: Feed) -> None:
        self._database = database
        self._clock = clock
        self._feed = feed
        self._me = secrets.token_hex(6)
        self._channel = f"atlas_{database.options.schema}"
        self._listener: StoreListener | None = None
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        """Of what is said on the connection."""
        self._something = asyncio.Event()
        self._ready: set[Kind] = set()
        self._left_ready = False
        self._changed: set[str] = set()
        self._outputs: set[str] = set()
        self._blurred_at = 0.0
        self._blurred: asyncio.TimerHandle | None = None
        self._polled = 0
        self._doubted = 0
        """Up to which place of the feed the listeners were told that anything may have happened."""
        self._doubted_at = 0.0
        self._told = 0

    @property
    def listening(self) -> bool:
        return self._connection is not None

    def open(self, listener: StoreListener) -> None:
        self._listener = listener

    async def close(self) -> None:
        """Hears nothing any more."""
        self._listener = None
        if self._blurred is not None:
            self._blurred.cancel()
            self._blurred = None
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()

    def wrote(self, ids: Iterable[str], xid: int, ready: Iterable[Kind]) -> None:
        """These jobs changed here, and some of these kinds became ready."""
        self._told = max(self._told, xid)
        self._changed.update(ids)
        self._ready.update(ready)
        self._something.set()

    def reported(self, ids: Iterable[str]) -> None:
        """These jobs have new output."""
        self._outputs.update(ids)
        self._something.set()

    def left_ready(self) -> None:
        """Jobs that a claim of several types had to hold for a moment are free again."""
        self._left_ready = True
        self._something.set()

    async def say(self) -> None:
        """Says what was gathered, on the connection that listens; while there is none, nobody is told."""
        while True:
            await self._something.wait()
            await self._clock.sleep(_GATHER)
            self._something.clear()
            payload = self._gathered()
            connection = self._connection
            if connection is None:
                continue
            try:
                async with self._turn:
                    await connection.execute("select pg_notify($1, $2)", self._channel, payload)
            except DRIVER_ERRORS as error:
                log.info("a notice was lost", error=type(error).__name__)
                connection.terminate()

    def _gathered(self) -> str:
        changed, self._changed = self._changed, set()
        outputs, self._outputs = self._outputs, set()
        ready, self._ready = self._ready, set()
        left_ready, self._left_ready = self._left_ready, False
        few_changed = len(changed) <= _MOST_IDS
        few_outputs = len(outputs) <= _MOST_IDS - (len(changed) if few_changed else 0)
        notice = Notice(
            self._me,
            self._told,
            list(ready) if not left_ready and len(_encode(list(ready))) <= _MOST_BYTES_OF_KINDS else None,
            list(changed) if few_changed else None,
            list(outputs) if few_outputs else None,
        )
        return _encode(notice).decode()

    async def hear(self) -> None:
        """Listens, for ever; after each pause everything may have changed."""
        dsn = self._database.options.listen_dsn
        if dsn is None:
            return
        rng = self._database.rng
        failures = 0
        heard_before = False
        while True:
            try:
                await self._listen(dsn, again=heard_before)
                heard_before = True
                failures = 0
                await self._beat()
            except DRIVER_ERRORS as error:
                failures += 1
                log.warning("listening for notices stopped", error=type(error).__name__, failures=failures)
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.terminate()
            await self._clock.sleep(min(0.05 * 2**failures, _LONGEST_PAUSE) * rng.uniform(0.5, 1.0))

    async def _listen(self, dsn: str, *, again: bool) -> None:
        # A notice is a hint: its commit need not wait for the disk.
        connection = await connect(dsn, self._database.options, planned=True, settings={"synchronous_commit": "off"})
        try:
            await connection.add_listener(self._channel, self._on_notice)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        if again:
            self.doubt()

    async def _beat(self) -> None:
        """Returns when the connection is lost. A silent one is asked now and then whether it is still there."""
        connection = self._connection
        lost = asyncio.Event()
        if connection is None:
            return
        connection.add_termination_listener(lambda _connection: lost.set())
        while not lost.is_set():
            try:
                async with asyncio.timeout(_BEAT):
                    await lost.wait()
            except TimeoutError:
                async with self._turn:
                    await connection.execute("select 1")

    def _on_notice(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        listener = self._listener
        if listener is None:
            return
        try:
            notice = _decode(str(payload))
        except msgspec.DecodeError:
            # Whoever may connect may also notify.
            self._blur()
            return
        if notice.sender == self._me:
            return
        self._told = max(self._told, notice.xid)
        self._feed.wrote(notice.xid)
        if notice.changed is None or notice.outputs is None:
            self._blur()
        if notice.outputs:
            listener.on_output(notice.outputs)
        if notice.changed:
            listener.on_news(notice.changed)
        if notice.ready is None or notice.ready:
            listener.on_ready(notice.ready)

    def _blur(self) -> None:
        """Something changed: said at once, then not more often than so."""
        if self._blurred is not None:
            return
        wait = self._blurred_at + _BLUR - self._clock.monotonic()
        if wait <= 0:
            self._say_blurred()
        else:
            self._blurred = asyncio.get_running_loop().call_later(wait, self._say_blurred)

    def _say_blurred(self) -> None:
        self._blurred = None
        self._blurred_at = self._clock.monotonic()
        if self._listener is not None:
            self._listener.on_news(None)

    def restart(self) -> None:
        """The database is another one: what was told of positions does not hold any more."""
        self._told = 0
        self._doubted = -1
        self.doubt()

    def doubt(self) -> None:
        """Anything may have changed."""
        if self._listener is not None:
            self._listener.on_news(None)
            self._listener.on_ready()

    async def poll(self) -> None:
        """Looks whether the feed moved by more than was told, for when notices are lost. That the latest ones came says
        nothing of those before them, whose server may have been killed; so when the feed has come to rest, and now and
        then while it moves, what happened is in doubt although it was told."""
        rng = self._database.rng
        self._doubted_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(_POLL * rng.uniform(0.8, 1.2))
            try:
                head = await self._feed.look()
            except AtlasError:
                # Whoever calls the store learns it too; here it only means that anything may have happened meanwhile.
                self._doubted = -1
                continue
            at_rest, self._polled = head == self._polled, head
            if head == self._doubted:
                continue
            told = self.listening and head <= self._told and self._doubted >= 0
            if not told or at_rest or self._clock.monotonic() - self._doubted_at >= _SURE:
                self._doubted, self._doubted_at = head, self._clock.monotonic()
                self.doubt()
