"""How much work a worker has, and what it can ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import Ask
from .execution import Kind, Lane

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .execution import Executor
    from .registry import Registry


class Capacity:
    """Slots in all, executors with a capacity each (lanes), job types with a limit each (kinds)."""

    def __init__(self, registry: Registry, slots: int, lanes: Mapping[str, tuple[Executor, int]]) -> None:
        self.slots = slots
        self.kinds: dict[str, Kind] = {}
        self._turn = 0
        by_name: dict[str, Lane] = {}
        for handler in registry:
            name = handler.info.executor
            if name not in by_name:
                executor, capacity = lanes[name]
                by_name[name] = Lane(executor, min(capacity, slots))
            kind = Kind(handler, by_name[name], slots)
            kind.lane.kinds.append(kind)
            self.kinds[kind.name] = kind
        self._lanes = list(by_name.values())

    def asks(self, free: int) -> tuple[list[Ask], int]:
        """What to lease with so many free slots: an ask for each type that has room, and the limit in all.

        Where types share a lane beside others, its room is split among them, so that they do not come to more than it
        holds. With less room than types each asks for one, and the limit in all is that room: slower, but what is too
        much would have to go back, and each time its job would show an attempt that was none.
        """
        self._turn += 1
        open_lanes = [(lane, lane.capacity - lane.busy) for lane in self._lanes if lane.busy < lane.capacity]
        asks: list[Ask] = []
        limit, most = 0, free
        for lane, room in open_lanes:
            kinds = [kind for kind in lane.kinds if kind.busy < kind.limit]
            crowded = len(open_lanes) > 1 and room < free
            if crowded and len(kinds) > room:
                most = min(most, room)
            before = len(asks)
            for place, kind in enumerate(kinds):
                share = _share(room, len(kinds), (place + self._turn) % len(kinds)) if crowded else room
                asks.append(Ask(kind.name, min(share, kind.limit - kind.busy)))
            limit += min(room, sum(ask.slots for ask in asks[before:]))
        return asks, min(most, limit)


def _share(room: int, sharers: int, place: int) -> int:
    whole, rest = divmod(room, sharers)
    return max(1, whole + (place < rest))
