"""The bridge from threads to the event loop: what `SyncClient` runs on.

All sync clients of a process share one background thread with one event loop, because several loops that use grpc.aio
disturb each other. It starts with the first client and ends with the last one's `close`. It does not survive a fork.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
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
        portal._close()

    def start(self, work: Coroutine[Any, Any, T]) -> futures.Future[T]:
        """Runs a coroutine in the background. Raises RuntimeError in the loop's own thread, and when it has ended."""
        with self._lock:
            if self.closed or threading.current_thread() is self._thread:
                work.close()
                msg = "the client is closed" if self.closed else "a SyncClient cannot be used in its own event loop"
                raise RuntimeError(msg)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine and waits for it. What interrupts the wait, as Ctrl-C does, cancels the coroutine."""
        return self.wait(self.start(work))

    def wait(self, future: futures.Future[T]) -> T:
        """Waits for what `start` returned. Raises Cancelled when the client was closed meanwhile."""
        try:
            return future.result()
        except futures.CancelledError:
            msg = "the client was closed"
            raise Cancelled(msg) from None
        except BaseException:
            future.cancel()
            raise

    def _run_loop(self) -> None:
        asyncio.run(self._until_closed())

    async def _until_closed(self) -> None:
        self._ended = asyncio.Event()
        self._started.set_result(asyncio.get_running_loop())
        await self._ended.wait()

    def _close(self) -> None:
        with self._lock:
            self.closed = True
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        # Work that was handed over in the loop's last moment never ran.
        for future in tuple(self._pending):
            future.cancel()


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
        self._lock = threading.Lock()
        self._closed = False
        self._reading: asyncio.Task[Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._lock:
            if self._closed:
                raise StopIteration
            reading = self._portal.start(self._read())
        try:
            return self._portal.wait(reading)
        except StopAsyncIteration:
            raise StopIteration from None
        except Cancelled:
            if self._closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """Ends the stream and its call; a thread that waits for the next item sees the end. May be repeated."""
        with self._lock:
            if self._closed or self._portal.closed:
                return
            self._closed = True
            closing = self._portal.start(self._end())
        self._portal.wait(closing)

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
