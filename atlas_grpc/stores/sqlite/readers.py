"""Some threads that only read, each with a connection of its own. A call is one hop there and one back."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import Unavailable
from ...observe.logs import get_logger
from . import faults
from .connection import connect_reader

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_THREADS = 2
"""One more than a long listing takes: Python runs one at a time anyway."""

log = get_logger("atlas.stores.sqlite")

_Read = tuple["Callable[[sqlite3.Connection], Any]", "asyncio.Future[Any]"]


class Readers:
    """The threads. Reads see all that was committed before they were asked for."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._main, name=f"atlas-sqlite-reader-{n}", daemon=True) for n in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Reads in the queue."""
        return self._queue.qsize()

    async def do(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a function on a connection."""
        if self._closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((read, future))
        return await future

    async def stop(self) -> None:
        """Does what waits, then ends the threads."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _main(self) -> None:
        connection: sqlite3.Connection | None = None
        while (job := self._queue.get()) is not None:
            read, future = job
            try:
                if connection is None:
                    connection = connect_reader(self._path)
                self._tell(_answer, future, read(connection))
            except Exception as error:
                if isinstance(error, sqlite3.Error):
                    log.error("the store could not read", error=type(error).__name__, code=faults.code(error))
                if connection is not None and faults.is_broken(error):
                    connection.close()
                    connection = None
                self._tell(_refuse, future, faults.translated(error))
        if connection is not None:
            connection.close()

    def _tell(self, how: Callable[..., None], future: asyncio.Future[Any], what: object) -> None:
        try:
            self._loop.call_soon_threadsafe(how, future, what)
        except RuntimeError:
            log.warning("a store was not closed before its event loop")


def _answer(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
