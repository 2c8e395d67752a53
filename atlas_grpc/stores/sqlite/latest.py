"""What was set last, by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

V = TypeVar("V")


class Latest(Generic[V]):
    """A dictionary of at least the last `length` entries, and at most twice as many.

    The old half is dropped as a whole: a dictionary that loses its first entry again and again grows slow.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._young: dict[str, V] = {}
        self._old: dict[str, V] = {}

    def get(self, key: str) -> V | None:
        """What was set, if it is still here."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def set(self, key: str, value: V) -> None:
        """Replaces what was there."""
        self._young[key] = value

    def update(self, values: Mapping[str, V]) -> None:
        """Replaces many."""
        self._young.update(values)

    def drop(self, key: str) -> None:
        """Forgets a key; harmless when it is not known."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def age(self) -> None:
        """To be called now and then: this keeps the bound."""
        if len(self._young) > self._length:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forgets all."""
        self._young = {}
        self._old = {}
