"""What a store tells of how it is doing, one number at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from atlas_grpc.observe.series import Histogram

if TYPE_CHECKING:
    from atlas_grpc.observe.readings import Reading
    from atlas_grpc.stores.base import Store


def vital(store: Store, name: str, label: str | None = None) -> float:
    """What the store knows without asking; of a histogram, how many there were."""
    return number(store.vitals()[name], label)


async def examined(store: Store, name: str, label: str | None = None) -> float:
    """What the store asks for."""
    return number((await store.examine())[name], label)


def number(reading: Reading, label: str | None = None) -> float:
    if isinstance(reading, Histogram):
        return reading.count
    if isinstance(reading, Mapping):
        return cast("Mapping[str | None, float]", reading)[label]
    return reading
