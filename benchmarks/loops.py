"""One choice of event loop for both sides, as `atlas serve` makes it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

UVLOOP = find_spec("uvloop") is not None
"""False on Windows, for which there is none."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs to the end, or until SIGTERM or SIGINT."""

    async def until_stopped() -> None:
        task = asyncio.ensure_future(main)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    factory = import_module("uvloop").new_event_loop if UVLOOP else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(until_stopped())
