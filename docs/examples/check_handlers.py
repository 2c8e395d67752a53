"""The job types of the conformance suite of workers, for `atlas worker`; docs/workers.md describes them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from atlas_grpc import FailNow, JobContext, handler

_TICK = 0.1


class CheckFailed(Exception):
    """A failure that may be tried again."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@handler(name="check.echo")
async def echo(value: Any = None) -> Any:
    """Returns its value."""
    return value


@handler(name="check.steps")
async def steps(steps: int, *, ctx: JobContext) -> int:
    """Tells progress and logs."""
    for step in range(1, steps + 1):
        ctx.progress(step, steps, f"step {step}")
        ctx.info(f"step {step}")
    return steps


@handler(name="check.fail")
async def fail(message: str, reason: str, final: bool = False) -> None:
    """Fails."""
    if final:
        raise FailNow(message, reason=reason)
    raise CheckFailed(message, reason)


@handler(name="check.tick")
async def tick(seconds: float, file: str) -> None:
    """Leaves lines in a file while it runs."""
    path = Path(file)
    _write(path, "begin")
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        _write(path, "tick")
        await asyncio.sleep(min(left, _TICK))
    _write(path, "end")


def _write(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
