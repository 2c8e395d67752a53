"""The conformance suite of workers, some checks at a time: they wait more than they work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from atlas_grpc.testing.check_worker import CHECKS, check_worker

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

AT_A_TIME = 3


async def together(checks: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The results of these checks, in order."""
    several = asyncio.Semaphore(AT_A_TIME)

    async def one(check: Coroutine[Any, Any, Any]) -> Any:
        async with several:
            return await check

    return await asyncio.gather(*map(one, checks))


async def failures(command: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """What a worker fails of all that it claims, by the name of the check."""
    results = await together([check_worker(name, command, without=list(without)) for name in CHECKS])
    return {
        name: result
        for name, result in zip(CHECKS, results, strict=True)
        if result.status != ("SKIPPED" if CHECKS[name].claim in without else "PASS")
    }
