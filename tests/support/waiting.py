"""Waiting for what gives no signal, and for what may never come."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = 0.1


async def until(holds: Callable[[], object], patience: float = 20) -> None:
    """Returns once the condition holds; fails when that takes too long."""
    async with asyncio.timeout(patience):
        while not holds():  # noqa: ASYNC110 - what is looked at belongs to code that knows nothing of the test
            await asyncio.sleep(0.005)


class Patience:
    """So many seconds in which this process really ran: being held up for a while, with all it waits for, uses up
    little."""

    def __init__(self, seconds: float) -> None:
        self._steps = round(seconds / _STEP)

    async def wait(self, event: asyncio.Event) -> None:
        """Returns once the event is set. Raises TimeoutError when the patience is at its end."""
        while not event.is_set():
            if self._steps <= 0:
                raise TimeoutError
            waiting = asyncio.ensure_future(event.wait())
            done, _ = await asyncio.wait([waiting], timeout=_STEP)
            if not done:
                waiting.cancel()
                self._steps -= 1


class RunningTime:
    """A clock that goes only while this process runs: a tick that comes late counts as one that came a little late.
    What it measures is what the other side did with its time, on a machine that may be busy with something else."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._task: asyncio.Task[None] | None = None

    def now(self) -> float:
        return self._seconds

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(_STEP / 10)
            now = time.monotonic()
            self._seconds += min(now - last, _STEP)
            last = now
