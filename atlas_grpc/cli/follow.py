"""Following one job to its end: what `atlas run` and `atlas watch ID` share."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import pb
from . import exits
from .display import display_for, fate_text, show_result
from .messages import update_of
from .output import show_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any, TypeVar

    from ..client import Client
    from .display import Display

    T = TypeVar("T")

FATES = {pb.Job.SUCCESS: exits.OK, pb.Job.FAILED: exits.JOB_FAILED, pb.Job.CANCELLED: exits.JOB_CANCELLED}


async def follow(client: Client, job_id: str, *, output: str, quiet: bool, wait: float | None) -> int:
    """Shows the job until it ends, its result on stdout, and answers the exit code of its fate."""
    display = display_for(output, quiet=quiet)
    try:
        job, interrupted = await until_interrupted(_to_the_end(client, job_id, display), wait)
    finally:
        display.close()
    if job is not None:
        return _ended(job, output, quiet=quiet)
    if interrupted:
        exits.say(f"detached; the job goes on. Re-attach with: atlas watch {job_id}")
        return exits.SIGNALLED + interrupted
    exits.complain(f"the job has not ended yet; it goes on. Re-attach with: atlas watch {job_id}")
    return exits.WAITED_TOO_LONG


async def _to_the_end(client: Client, job_id: str, display: Display) -> pb.Job | None:
    last: pb.Job | None = None
    async with client.watch(job_id) as events:
        async for event in events:
            update = update_of(event)
            display.update(update)
            if update.HasField("job"):
                last = update.job
    return last


def _ended(job: pb.Job, output: str, *, quiet: bool) -> int:
    if output == "json":
        show_json(job)
    elif output == "table":
        show_result(job)
    if not quiet:
        exits.say(fate_text(job))
    return FATES.get(job.state, exits.JOB_FAILED)


async def until_interrupted(work: Coroutine[Any, Any, T], wait: float | None = None) -> tuple[T | None, int]:
    """What `work` returns, or None after `wait` seconds or a signal, whose number is the second value; `work` is then
    cut.
    """
    task = asyncio.ensure_future(work)
    with _on_interrupt(task.cancel) as interrupted:
        await asyncio.wait({task}, timeout=wait)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        return None, interrupted()
    return task.result(), 0


@contextmanager
def _on_interrupt(act: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Calls `act` in the loop at the first Ctrl-C or SIGTERM, which would leave a terminal without its cursor. Later
    ones do nothing, until the end of the program.
    """
    loop = asyncio.get_running_loop()
    seen = 0

    def handle(number: int, _: object) -> None:
        nonlocal seen
        if not seen:
            seen = number
            loop.call_soon_threadsafe(act)

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield lambda: seen
    finally:
        if not seen:
            for number, handler in before:
                signal.signal(number, handler)
