"""Coroutine handlers: one asyncio task for each attempt, and nothing else."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ..model import TimedOut
from .execution import conclude, failed

if TYPE_CHECKING:
    from ..model import Outcome
    from .execution import Ended, Execution, Limits


class Tasks:
    """Runs `async def` handlers in the event loop."""

    def __init__(self, ended: Ended, limits: Limits) -> None:
        self._ended = ended
        self._limits = limits
        self._loop = asyncio.get_running_loop()

    def start(self, execution: Execution) -> None:
        execution.task = self._loop.create_task(self._perform(execution))

    def stop(self, execution: Execution, *, kill: bool) -> None:  # noqa: ARG002 - a task cannot be killed
        if execution.context is not None:
            execution.context.request_stop()
        task = execution.task
        if task is None:
            return
        task.cancel()
        if not execution.started:
            # Cancelled before its first step, the coroutine never runs: nobody else would end the attempt.
            self._ended(execution, TimedOut())

    async def close(self) -> None:
        """Nothing can be done: a coroutine that swallows its cancellation goes on, and `asyncio.run` waits for it."""

    async def _perform(self, execution: Execution) -> None:
        execution.started = True
        if self._limits.bind is not None:
            self._limits.bind(execution.assignment)
        try:
            signature = execution.kind.handler.signature
            outcome: Outcome
            if signature.dependencies is None:
                value = await signature.call(execution.assignment.payload, execution.context)
                outcome = conclude(value, execution, self._limits)
            else:
                finish = partial(conclude, execution=execution, limits=self._limits)
                outcome = await signature.perform_async(execution.assignment.payload, execution.context, finish)
        except BaseException as exc:  # SystemExit and KeyboardInterrupt too: a handler must not end the server
            if self._loop.is_closed():  # the coroutine is only being thrown away
                raise
            outcome = failed(execution, exc)
        self._ended(execution, outcome)
