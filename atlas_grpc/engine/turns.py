"""Who of those that wait for jobs is to look for some.

If all of them looked whenever a job becomes ready, a thousand idle workers would ask the store a thousand times for one
job. So those who ask for the same are a group, in which one is called. It looks, and calls others of the group for as
long as there may be more: two when it got all that it had room for, so that many are at work soon, else one, until a
look has left nothing. What was left nothing of is known to all, up to when jobs become ready again.

A call is answered by a look (`begin`, `end`), or passed on (`leave`, `wait`); so as long as there may be something for
a group in which somebody waits, somebody of it was called or looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

Key = tuple[str, frozenset[str] | None]
"""A job type, and the queues to take it from; None for all."""


class Waiter(Protocol):
    """One who waits for jobs."""

    tried: int
    """The version at which its look said nothing, for it may not have been allowed to look. It is not called again
    until jobs become ready."""

    def call(self) -> None:
        """It is to look for jobs."""
        ...


class Turns:
    """Calls one after the other. `version` grows when jobs become ready."""

    def __init__(self) -> None:
        self.version = 1
        self._dry: set[Key] = set()
        self._groups: dict[frozenset[Key], dict[Waiter, None]] = {}
        self._waiting: dict[Waiter, frozenset[Key]] = {}
        self._called: dict[Waiter, frozenset[Key]] = {}

    def ready(self) -> None:
        """Jobs became ready, of whatever kind."""
        self.version += 1
        self._dry.clear()
        called = set(self._called.values())
        for keys in [keys for keys in self._groups if keys not in called]:
            self._call(keys, 1)

    def may_find(self, waiter: Waiter, keys: frozenset[Key]) -> bool:
        """Whether it is worth a look."""
        return waiter.tried != self.version and not self._dry.issuperset(keys)

    def wait(self, waiter: Waiter, keys: frozenset[Key]) -> None:
        """It waits to be called."""
        self.leave(waiter)
        self._waiting[waiter] = keys
        self._groups.setdefault(keys, {})[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """It waits no more, and will not look though it may have been called."""
        self._forget(waiter)
        keys = self._called.pop(waiter, None)
        if keys is not None:
            self._call(keys, 1)

    def begin(self, waiter: Waiter) -> int:
        """It looks. Answers the version, for `end`."""
        self._forget(waiter)
        self._called.pop(waiter, None)
        return self.version

    def end(self, version: int, keys: frozenset[Key], nothing_left: Collection[Key], *, full: bool) -> None:
        """A look that began at this version, for these keys, is over. `full`: there was as much as it had room for."""
        if version == self.version:
            self._dry.update(nothing_left)
        self._call(keys, 2 if full else 1)

    def _call(self, keys: frozenset[Key], most: int) -> None:
        group = self._groups.get(keys, {})
        while most and not self._dry.issuperset(keys):
            waiter = next((waiter for waiter in group if waiter.tried != self.version), None)
            if waiter is None:
                return
            self._forget(waiter)
            self._called[waiter] = keys
            waiter.call()
            most -= 1

    def _forget(self, waiter: Waiter) -> None:
        keys = self._waiting.pop(waiter, None)
        if keys is not None:
            group = self._groups[keys]
            del group[waiter]
            if not group:
                del self._groups[keys]
