"""The job types that this server accepts: those of its own handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import Violation
    from ..model import Content, TypeInfo
    from ..worker.registry import Registry


class RegistryCatalog:
    """A handler registry as the engine's catalog. Types added to the registry later are not seen."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._types = {info.name: info for info in sorted(registry.types(), key=lambda info: info.name)}

    def get(self, name: str) -> TypeInfo | None:
        return self._types.get(name)

    def types(self) -> Sequence[TypeInfo]:
        return list(self._types.values())

    def violations(self, name: str, payload: Content) -> Sequence[Violation]:
        return self._registry.violations(name, payload)
