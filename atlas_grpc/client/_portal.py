"""The bridge from threads to the event loop: what `SyncClient` runs on.

All sync clients of a process share one background thread with one event loop, because several loops that use grpc.aio
disturb each other. It starts with the first client and ends with the last one's `close`. It does not survive a fork.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ..errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

    from ._stream import Stream

T = TypeVar("T")


class Portal:
    """A thread that runs coroutines for other threads."""

    _shared: ClassVar[Portal | None] = None
    _users: ClassVar[int] = 0
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.closed = False
        self._lock = threading.Lock()
        self._pending: set[futures.Future[Any]] = set()
        self._started: futures.Future[asyncio.AbstractEventLoop] = futures.Future()
        self._thread = threading.Thread(target=self._run_loop, name="atlas-client", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    @classmethod
    def acquire(cls) -> Portal:
        """The portal of the process; to be given back by `release`."""
        with cls._sharing:
            if cls._shared is None:
                cls._shared = cls()
            cls._users += 1
            return cls._shared

    @classmethod
    def release(cls) -> None:
        """Gives it back. The last one ends the thread, and what it still runs."""
        with cls._sharing:
            cls._users -= 1
            if cls._users or cls._shared is None:
                return
            portal, cls._shared = cls._shared, None
        portal.end()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine and waits for it. What interrupts the wait, as Ctrl-C does, cancels the coroutine.

        Raises Cancelled when the client is closed meanwhile; RuntimeError when it was before, or in the loop's own
        thread.
        """
        call = _Call(work)
        try:
            return self._start(call).result()
        except futures.CancelledError:
            raise Cancelled("the client was closed") from None
        except Exception:
            raise
        except BaseException:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call.give_up)
            raise

    def _start(self, call: _Call[T]) -> futures.Future[T]:
        with self._lock:
            if self.closed or threading.current_thread() is self._thread:
                call.work.close()
                raise RuntimeError("the client is closed, or used in its own event loop")
            future = asyncio.run_coroutine_threadsafe(call.run(), self._loop)
            self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _run_loop(self) -> None:
        asyncio.run(self._until_closed())

    async def _until_closed(self) -> None:
        self._ended = asyncio.Event()
        self._started.set_result(asyncio.get_running_loop())
        await self._ended.wait()

    def end(self) -> None:
        """Ends the thread. What is still waited for raises Cancelled."""
        with self._lock:
            self.closed = True
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        # Work that was handed over in the loop's last moment never ran.
        for future in tuple(self._pending):
            future.cancel()


class _Call(Generic[T]):
    """A coroutine that can be given up before, while and after it is handed to the loop."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.work = work
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    async def run(self) -> T:
        self._task = asyncio.current_task()
        if self._given_up:
            self.work.close()
            raise asyncio.CancelledError
        return await self.work

    def give_up(self) -> None:
        self._given_up = True
        if self._task is not None:
            self._task.cancel()


class Portaled:
    """What holds a place in the portal until it is closed."""

    def __init__(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._portal = Portal.acquire()
        self._close = close
        self._open = True
        self._closing = threading.Lock()

    def close(self) -> None:
        """Ends all calls (they raise Cancelled) and the connection. May be repeated."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        try:
            self._portal.run(self._close())
        finally:
            Portal.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SyncStream(Generic[T]):
    """An iterator that holds a call to the server.

    It ends by itself, by `close()` (from any thread), or with a `with` block around it. One thread iterates at a time.
    """

    def __init__(self, portal: Portal, source: Stream[T]) -> None:
        self._portal = portal
        self._source = source
        self._closed = False
        self._reading: asyncio.Task[Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            return self._portal.run(self._read())
        except StopAsyncIteration:
            raise StopIteration from None
        except Cancelled:
            if self._closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """Ends the stream and its call; a thread that waits for the next item sees the end. May be repeated."""
        if not self._closed and not self._portal.closed:
            self._closed = True
            self._portal.run(self._end())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _read(self) -> T:
        self._reading = asyncio.current_task()
        return await anext(self._source)

    async def _end(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._source.aclose()
