"""Numbers that are cheap to add to, by label values."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

K = TypeVar("K", str, tuple[str, ...])
V = TypeVar("V")

OTHER = "other"
"""The label value that stands for all that came after a family was full."""


class Counter:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """How many observations fell between which bounds, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the inclusive upper ends of the buckets, ascending, without infinity."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one observation. A negative one, as a stepping clock makes it, counts as 0."""
        if value > 0.0:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.sum += value
        else:
            self.counts[0] += 1

    def observe_many(self, values: Iterable[float]) -> None:
        """Adds several."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            if value > 0.0:
                counts[bisect_left(bounds, value)] += 1
                self.sum += value
            else:
                counts[0] += 1

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Each upper bound with the number of observations up to it, the last one `+Inf`."""
        total = 0
        pairs: list[tuple[str, float]] = []
        for bound, count in zip((*map(float, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            pairs.append((str(bound), total))
        return pairs


class Family(dict[K, V]):
    """A metric's numbers by label values (a string, or a tuple when there are several labels).

    Asking for new values adds them at zero. A family that holds `limit` of them replaces those of the open labels, the
    ones that callers make up, by "other".
    """

    def __init__(self, make: Callable[[], V], limit: int, open_labels: Collection[int] = (0,)) -> None:
        super().__init__()
        self._make = make
        self._limit = limit
        self._open = frozenset(open_labels)

    def __missing__(self, key: K) -> V:
        if len(self) >= self._limit:
            key = self._overflow(key)
            if key in self:
                return self[key]
        value = self[key] = self._make()
        return value

    def _overflow(self, key: K) -> K:
        if isinstance(key, str):
            return OTHER
        return tuple(OTHER if place in self._open else value for place, value in enumerate(key))


class Names(dict[str, None]):
    """Label values that callers make up: the first `limit` that came, and "other" once there were more."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def bounded(self, name: str) -> str:
        """The name, or "other" when it came too late."""
        known = name if name in self or len(self) < self._limit else OTHER
        self[known] = None
        return known
