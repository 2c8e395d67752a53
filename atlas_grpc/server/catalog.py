"""The job types that this server accepts: those of its own handlers, and those that workers announced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .schemas import Schemas

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..engine.announced import Announced
    from ..errors import Violation
    from ..model import Content, TypeInfo
    from ..worker.registry import Registry


class SharedCatalog:
    """A handler registry and the announcements of workers, as the engine's catalog. A server's own handlers come first.
    Types added to the registry later are not seen.
    """

    def __init__(self, registry: Registry, announced: Announced) -> None:
        self._registry = registry
        self._own = {info.name: info for info in registry.types()}
        self._announced = announced
        self._schemas = Schemas()

    def get(self, name: str) -> TypeInfo | None:
        return self._own.get(name) or self._announced.get(name)

    def types(self) -> Sequence[TypeInfo]:
        known = {info.name: info for info in self._announced.types()} | self._own
        return [known[name] for name in sorted(known)]

    async def look_up(self, names: Collection[str]) -> None:
        others = {name for name in names if name not in self._own}
        if others:
            await self._announced.look_up(others)

    def violations(self, name: str, payload: Content) -> Sequence[Violation]:
        if name in self._own:
            return self._registry.violations(name, payload)
        info = self._announced.get(name)
        if info is None or info.payload_schema is None or payload.content_type is not None:
            return ()
        return self._schemas.violations(info.payload_schema, msgspec.json.decode(payload.data))
