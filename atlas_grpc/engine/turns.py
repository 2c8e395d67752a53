"""Who of those that wait for jobs is to look for some.

If all of them looked whenever a job becomes ready, a thousand idle workers would ask the store a thousand times for one
job. So those who ask for the same are a group, in which one is called when something that it asks for becomes ready. It
looks, and calls others of the group for as long as there may be more: two when it got all that it had room for, so that
many are at work soon, else one, until a look has left nothing. What was left nothing of is known to all, up to when
such jobs become ready again.

A call is answered by a look (`begin`, `end`), or passed on (`leave`, `wait`); so as long as there may be something for
a group in which somebody waits, somebody of it was called or looks.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..stores.base import Kind

Key = tuple[str, frozenset[str] | None]
"""A job type, and the queues to take it from; None for all."""
_MOST_KNOWN = 10_000
"""Kinds of which it is remembered when they became ready, and keys of which nothing was left. Queues come and go."""


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
        self._all_ready = 1
        """The version at which jobs of unknown kinds became ready."""
        self._ready: dict[tuple[str, str | None], int] = {}
        """The same of kinds, and of types whatever the queue."""
        self._dry: dict[Key, int] = {}
        """The version at which a look began that left nothing."""
        self._groups: dict[frozenset[Key], dict[Waiter, None]] = {}
        self._places: dict[tuple[str, str | None], dict[frozenset[Key], None]] = {}
        """The groups that wait for a kind, or for a type whatever the queue."""
        self._waiting: dict[Waiter, frozenset[Key]] = {}
        self._called: dict[Waiter, frozenset[Key]] = {}

    def ready(self, kinds: Collection[Kind] | None = None) -> None:
        """Jobs of these kinds became ready; None: of whatever kinds."""
        self.version += 1
        if kinds is None or len(self._ready) + len(self._dry) > _MOST_KNOWN:
            self._all_ready = self.version
            self._ready.clear()
            self._dry.clear()
        if kinds is None:
            groups = list(self._groups)
        else:
            places = {place for kind, queue in kinds for place in ((kind, queue), (kind, None))}
            self._ready.update(dict.fromkeys(places, self.version))
            groups = list({keys: None for place in places for keys in self._places.get(place, ())})
        called = set(self._called.values())
        for keys in groups:
            if keys not in called:
                self._call(keys, 1)

    def may_find(self, waiter: Waiter, keys: frozenset[Key]) -> bool:
        """Whether it is worth a look."""
        return waiter.tried != self.version and not self._are_dry(keys)

    def wait(self, waiter: Waiter, keys: frozenset[Key]) -> None:
        """It waits to be called."""
        self.leave(waiter)
        self._waiting[waiter] = keys
        group = self._groups.get(keys)
        if group is None:
            group = self._groups[keys] = {}
            for place in _all_places(keys):
                self._places.setdefault(place, {})[keys] = None
        group[waiter] = None

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
        self._dry.update(dict.fromkeys(nothing_left, version))
        self._call(keys, 2 if full else 1)

    def _are_dry(self, keys: frozenset[Key]) -> bool:
        return all(self._dry.get(key, 0) >= self._became_ready(key) for key in keys)

    def _became_ready(self, key: Key) -> int:
        """The version at which jobs last did."""
        return max(self._all_ready, max((self._ready.get(place, 0) for place in _places(key)), default=0))

    def _call(self, keys: frozenset[Key], most: int) -> None:
        group = self._groups.get(keys)
        if not group or self._are_dry(keys):
            return
        for waiter in [*islice((waiter for waiter in group if waiter.tried != self.version), most)]:
            self._forget(waiter)
            self._called[waiter] = keys
            waiter.call()

    def _forget(self, waiter: Waiter) -> None:
        keys = self._waiting.pop(waiter, None)
        if keys is None:
            return
        group = self._groups[keys]
        del group[waiter]
        if not group:
            del self._groups[keys]
            for place in _all_places(keys):
                del self._places[place][keys]
                if not self._places[place]:
                    del self._places[place]


def _all_places(keys: frozenset[Key]) -> set[tuple[str, str | None]]:
    return {place for key in keys for place in _places(key)}


def _places(key: Key) -> list[tuple[str, str | None]]:
    kind, queues = key
    return [(kind, None)] if queues is None else [(kind, queue) for queue in queues]
