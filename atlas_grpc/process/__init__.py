"""What the processes of Atlas share, server and worker: the event loop, the garbage collector, and the end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import TYPE_CHECKING

from ..observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..observe.logs import LogPipeline

_LAST_PATIENCE = 1.0
"""Seconds that what handlers left has to end, when all else has ended."""

log = get_logger("atlas.process")


def run_loop(main: Coroutine[object, object, int], *, uvloop: bool) -> int:
    """Runs a coroutine to its end, on uvloop if it is wanted and installed."""
    if uvloop:
        try:
            import uvloop as loop_module
        except ImportError:
            log.warning("uvloop is not installed; using asyncio's own loop")
        else:
            with asyncio.Runner(loop_factory=loop_module.new_event_loop) as runner:
                return runner.run(main)
    return asyncio.run(main)


def tame_garbage_collector() -> None:
    """Jobs are untracked and in no cycles; full passes over the rest of a long-lived heap only cost latency."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def leave(pipeline: LogPipeline, code: int) -> None:
    """Ends the process here and now when handlers left what an orderly end would wait for, perhaps for ever: coroutines
    that swallow their cancellation, and threads that are no daemons, such as those of `asyncio.to_thread`.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    executor = asyncio.ensure_future(asyncio.get_running_loop().shutdown_default_executor())
    _, running = await asyncio.wait([*tasks, executor], timeout=_LAST_PATIENCE)
    threads = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    if running or threads:
        log.warning("handlers run on, the process ends without them", tasks=len(tasks & running), threads=len(threads))
        pipeline.close()
        os._exit(code)
