"""The memory store passes every check."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.clock import SystemClock
from atlas_grpc.stores.memory import MemoryLimits, MemoryStore
from atlas_grpc.testing.stores import CHECKS, CheckSkipped, StoreFactory
from tests.conformance.stores.factories import MemoryFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.stores.base import Store

DOES_NOT_APPLY = {"everything_is_there_again"}
"""What this store does not promise: its jobs end with the process."""


class SharedFactory(MemoryFactory):
    """One memory store with two listeners stands for two stores on the same data, so that these checks run too."""

    shared = True

    def another(self, store: Store) -> Store:
        return store


class RealTimeFactory(StoreFactory):
    """The memory store on the clock of the machine: checks may not need a clock that obeys."""

    limits = frozenset(MemoryLimits.__struct_fields__)

    @asynccontextmanager
    async def __call__(self, **limits: int) -> AsyncIterator[Store]:
        yield MemoryStore(SystemClock(), MemoryLimits(**limits))


@pytest.mark.parametrize("name", sorted(CHECKS.keys() - DOES_NOT_APPLY))
async def test_check(name: str) -> None:
    await CHECKS[name](SharedFactory())


@pytest.mark.parametrize("name", sorted(DOES_NOT_APPLY))
async def test_a_check_that_does_not_apply_says_so(name: str) -> None:
    with pytest.raises(CheckSkipped):
        await CHECKS[name](MemoryFactory())


async def test_checks_need_no_obedient_clock() -> None:
    async def run(name: str) -> None:
        with contextlib.suppress(CheckSkipped):
            await CHECKS[name](RealTimeFactory())

    await asyncio.gather(*map(run, CHECKS))
