"""What can be wrong with handlers before a job runs, and with a payload when one is about to.

RegistryError
├── InvalidHandler     the function or its options cannot be a handler (a middleware, a lifespan)
├── NotAHandler        there is no `@handler` on it
├── DuplicateType      two handlers for one job type
├── LoadFailed         a module or file could not be loaded, or holds no handlers
└── LifespanFailed     a lifespan could not be entered
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import Violation


class RegistryError(Exception):
    """The handlers cannot be used as they are. The message is meant for the person who wrote them."""


class InvalidHandler(RegistryError):
    """The function, its signature or its options cannot be those of a handler, or of what else `kind` names."""

    def __init__(self, name: str, problem: str, *, kind: str = "handler") -> None:
        super().__init__(f"{kind} {name}: {problem}")
        self.handler = name
        self.problem = problem


class NotAHandler(RegistryError):
    """What was added is no function that `@handler` marked."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not a handler: decorate the function with @handler")


class DuplicateType(RegistryError):
    """Two handlers claim one job type."""

    def __init__(self, type_name: str, first: str, second: str) -> None:
        super().__init__(f"job type {type_name!r} has two handlers: {first} and {second}")
        self.type_name = type_name


class LoadFailed(RegistryError):
    """A module or file of handlers could not be loaded; `__cause__` is what it raised."""

    def __init__(self, spec: str, problem: str) -> None:
        super().__init__(f"cannot load handlers from {spec!r}: {problem}")
        self.spec = spec
        self.problem = problem


class LifespanFailed(RegistryError):
    """What a worker needs for its life could not be had; `__cause__` is what the lifespan raised."""

    reason = "LIFESPAN_FAILED"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"lifespan {name} failed: {problem}")
        self.lifespan = name
        self.problem = problem


class PayloadRefused(Exception):
    """The payload of a job that was leased does not fit its handler (any more)."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(violations)
        self.violations = tuple(violations)


class ResultRefused(Exception):
    """What a handler returned cannot be a result. `reason` goes into the job's error."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
