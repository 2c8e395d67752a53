"""The jobs of the stores' benchmark: few types, as a worker asks for each."""

from __future__ import annotations

import asyncio

from atlas_grpc import handler
from benchmarks.handlers import gate, noop

__all__ = ["behind", "gate", "noop"]


@handler(concurrency=1)
async def behind() -> None:
    """Never ends. So all further jobs of this type are ready and stay so, since the worker has no room for them."""
    await asyncio.Event().wait()
