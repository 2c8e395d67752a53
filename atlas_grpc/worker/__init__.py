"""Executing jobs: handlers, the registry that knows them, and the runner that leases work and hands in results.

`handler`, `JobContext`, `Depends`, `middleware` and `lifespan` are all that a module of handlers needs and cost little
to import; `Registry` and `Runner` are loaded when they are first asked for, because they bring Pydantic along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .context import JobContext
from .decorator import handler
from .depends import Depends
from .lifespans import lifespan
from .middlewares import CallNext, middleware

if TYPE_CHECKING:
    from .registry import Registry
    from .runner import Runner

__all__ = ["CallNext", "Depends", "JobContext", "Registry", "Runner", "handler", "lifespan", "middleware"]

_LAZY = {"Registry": ".registry", "Runner": ".runner"}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module, __name__), name)
