"""The event loop of the verbs."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """What asyncio.run does, in a loop that no signal finds asleep."""

    async def woken() -> T:
        with _woken_by_signals():
            return await main

    return asyncio.run(woken())


@contextmanager
def _woken_by_signals() -> Iterator[None]:
    """Python runs a handler of `signal.signal` when its main thread is next awake. One whose signal came just before
    the loop went to sleep, or to another thread, would wait until something else wakes the loop: perhaps for ever.
    """
    loop = asyncio.get_running_loop()
    inner, outer = socket.socketpair()
    with inner, outer:
        inner.setblocking(False)
        outer.setblocking(False)
        loop.add_reader(inner, inner.recv, 4096)
        before = signal.set_wakeup_fd(outer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(inner)
