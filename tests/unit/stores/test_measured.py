"""Every operation of a store is timed, by its outcome."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc.errors import ResumeTokenExpired, Unavailable
from atlas_grpc.observe.metrics import Metrics
from atlas_grpc.stores.measured import OPERATIONS, measured
from atlas_grpc.stores.memory import MemoryStore
from atlas_grpc.testing import FakeClock
from atlas_grpc.testing.stores._kit import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atlas_grpc.model import Job


def count(metrics: Metrics, operation: str, outcome: str) -> float | None:
    labels = {"operation": operation, "outcome": outcome}
    return metrics.registry.get_sample_value("atlas_store_operation_seconds_count", labels)


def test_all_operations_are_timed() -> None:
    written = {name for name, member in inspect.getmembers(MemoryStore) if inspect.iscoroutinefunction(member)}
    assert written - {*OPERATIONS} == {"open", "close", "examine"}
    assert not {*OPERATIONS} - written


async def test_the_store_is_the_same_but_for_being_timed() -> None:
    metrics = Metrics()
    inner = MemoryStore(FakeClock())
    store = measured(inner, metrics)
    await store.open(Listener())
    assert (store.instant, store.epoch, store.now(), store.vitals()) == (True, inner.epoch, inner.now(), {})
    assert await store.get(["x"]) == [None]
    assert await store.changes(after=0, limit=1) == ([], 0)
    with pytest.raises(ResumeTokenExpired):
        await store.changes(7, 1)
    assert (
        count(metrics, "get", "OK") == count(metrics, "changes", "OK") == count(metrics, "changes", "OutOfRange") == 1
    )
    assert count(metrics, "put", "OK") is None
    await store.close()


class _Troubled(MemoryStore):
    trouble: BaseException | None = None

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        if self.trouble is not None:
            raise self.trouble
        await asyncio.Event().wait()
        return []


@pytest.mark.parametrize(("trouble", "outcome"), [(Unavailable("gone"), "Unavailable"), (OSError(), "Unknown")])
async def test_failures_go_by_their_code(trouble: Any, outcome: str) -> None:
    metrics = Metrics()
    inner = _Troubled(FakeClock())
    inner.trouble = trouble
    with pytest.raises(type(trouble)):
        await measured(inner, metrics).insert([])
    assert count(metrics, "insert", outcome) == 1
    assert count(metrics, "insert", "OK") is None


async def test_a_caller_that_goes_away_counts_too() -> None:
    metrics = Metrics()
    call = asyncio.ensure_future(measured(_Troubled(FakeClock()), metrics).insert([]))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert count(metrics, "insert", "Canceled") == 1
