"""A handler, and a lifespan that begins as `ATLAS_TEST_LIFESPAN` says: `fails`, `takes <seconds>`, or `stays` for ever,
whatever it is told.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from atlas_grpc import handler, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOW, *SECONDS = os.environ.get("ATLAS_TEST_LIFESPAN", "takes 0").split()


@lifespan
async def database() -> AsyncIterator[None]:
    print("beginning", flush=True)
    if HOW == "fails":
        raise ConnectionError("no database")
    if HOW == "takes":
        await asyncio.sleep(float(*SECONDS))
    while HOW == "stays":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
    yield


@handler
async def one() -> int:
    return 1
