"""The jobs of the benchmark: `atlas serve --handlers benchmarks/handlers.py`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from atlas_grpc import handler
from atlas_grpc.errors import GiveBack


@handler
async def noop() -> None:
    """Does nothing, in the event loop."""


@handler
async def nap() -> None:
    """Takes a tenth of a second."""
    await asyncio.sleep(0.1)


@handler
async def stamp() -> float:
    """Tells when it began, in seconds since 1970."""
    return time.time()


@handler
def noop_thread() -> None:
    """Does nothing, in a thread."""


@handler
async def order(customer: str, items: list[int], total: float, paid: bool, note: str = "") -> None:
    """Does nothing with a payload as small programs send it."""


@handler
async def gate(path: str) -> None:
    """Keeps a slot until there is a file of that name. All that wait for the same one go on in the same instant."""
    if path not in _opened:
        _opened[path] = asyncio.ensure_future(_exists(Path(path)))
    await asyncio.shield(_opened[path])


@handler
async def bounce(pause_ms: float) -> None:
    """Never ends: goes back to its queue after each pause, which makes two transitions a time."""
    if pause_ms:
        await asyncio.sleep(pause_ms / 1000)
    raise GiveBack


_opened: dict[str, asyncio.Future[None]] = {}


async def _exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC240, ASYNC110 - a stat is quick, and the other side is another process
        await asyncio.sleep(0.01)
