"""Helpers for the tests of those who use or extend Atlas: a clock that obeys, a server in this process, store
conformance.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .clock import FakeClock

if TYPE_CHECKING:
    from .server import serving
    from .stores import check_store

__all__ = ["FakeClock", "check_store", "serving"]

_LAZY = {"serving": ".server", "check_store": ".stores"}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module, __name__), name)
