"""Plain handlers: a pool of threads.

They are daemons, which those of `concurrent.futures` are not: a handler that ignores its cancellation cannot be killed,
and must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from ..model import SECOND, Released
from .execution import log, perform

if TYPE_CHECKING:
    from ..model import Outcome
    from .execution import Ended, Execution, Limits

Work = tuple["Execution", contextvars.Context]


class Threads:
    """Runs `def` handlers. Threads are started when they are needed and kept; the caller bounds their number."""

    def __init__(self, ended: Ended, limits: Limits) -> None:
        self._ended = ended
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._done: deque[tuple[Execution, Outcome]] = deque()
        self._called = False
        self._threads = 0
        self._free = 0

    def start(self, execution: Execution) -> None:
        if self._free:
            self._free -= 1
        else:
            try:
                Thread(target=self._serve, name=f"atlas-handler-{self._threads + 1}", daemon=True).start()
            except RuntimeError:  # the system has no more
                log.error("no thread can be started")
                self._ended(execution, Released(SECOND))
                return
            self._threads += 1
        self._work.put((execution, contextvars.copy_context()))

    def stop(self, execution: Execution, *, kill: bool) -> None:  # noqa: ARG002 - a thread cannot be killed
        if execution.context is not None:
            execution.context.request_stop()

    async def close(self) -> None:
        for _ in range(self._threads):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            execution, context = work
            outcome = context.run(perform, execution, self._limits)
            self._done.append((execution, outcome))
            del work, execution, context, outcome
            if not self._called:
                self._called = True
                with suppress(RuntimeError):  # the loop was closed while the handler ran on
                    self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._called = False
        while self._done:
            self._free += 1
            self._ended(*self._done.popleft())
