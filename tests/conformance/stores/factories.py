"""The stores that the conformance tests run on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from atlas_grpc.stores.memory import MemoryLimits, MemoryStore
from atlas_grpc.testing import FakeClock
from atlas_grpc.testing.stores import StoreFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atlas_grpc.stores.base import Store


class MemoryFactory(StoreFactory):
    """The memory store on a clock that stands still until the check asks it to move."""

    limits = frozenset(MemoryLimits.__struct_fields__)
    store_type: type[MemoryStore] = MemoryStore

    @asynccontextmanager
    async def __call__(self, **limits: int) -> AsyncIterator[Store]:
        yield self.store_type(FakeClock(), MemoryLimits(**limits))

    async def pass_time(self, store: Store, micros: int) -> None:
        cast("FakeClock", cast("MemoryStore", store)._clock).tick(micros)
