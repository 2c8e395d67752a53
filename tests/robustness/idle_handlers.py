"""A handler that never ends and says all the time how far it is."""

from __future__ import annotations

import asyncio
from itertools import count

from atlas_grpc import JobContext, handler


@handler
async def busy(*, ctx: JobContext) -> None:
    """Reports as often as the worker takes it."""
    for number in count():
        ctx.progress(number, 0, f"step {number % 1000:03}")
        await asyncio.sleep(0.02)
