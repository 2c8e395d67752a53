"""The jobs of the benchmark: `atlas serve --handlers benchmarks/handlers.py`."""

from __future__ import annotations

import asyncio

from atlas_grpc import handler
from atlas_grpc.errors import GiveBack


@handler
async def noop() -> None:
    """Does nothing, in the event loop."""


@handler
def noop_thread() -> None:
    """Does nothing, in a thread."""


@handler
async def order(customer: str, items: list[int], total: float, paid: bool, note: str = "") -> None:
    """Does nothing with a payload as small programs send it."""


@handler
async def sleep_ms(ms: int) -> None:
    """Keeps a slot for so long."""
    await asyncio.sleep(ms / 1000)


@handler
async def bounce(pause_ms: float) -> None:
    """Never ends: goes back to its queue after each pause, which makes two transitions a time."""
    if pause_ms:
        await asyncio.sleep(pause_ms / 1000)
    raise GiveBack
