"""Waiting for what gives no signal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(holds: Callable[[], object], patience: float = 20) -> None:
    """Returns once the condition holds; fails when that takes too long."""
    async with asyncio.timeout(patience):
        while not holds():  # noqa: ASYNC110 - what is looked at belongs to code that knows nothing of the test
            await asyncio.sleep(0.005)
