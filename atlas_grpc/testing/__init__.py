"""Helpers for the tests of those who use or extend Atlas: running handlers without a server, a server in this process,
a clock that obeys, store conformance.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .clock import FakeClock

if TYPE_CHECKING:
    from .context import FakeContext, fake_context
    from .handlers import HandlerRun, run_handler, run_handler_sync
    from .server import serving
    from .stores import check_store

__all__ = [
    "FakeClock",
    "FakeContext",
    "HandlerRun",
    "check_store",
    "fake_context",
    "run_handler",
    "run_handler_sync",
    "serving",
]

_LAZY = {
    "FakeContext": ".context",
    "HandlerRun": ".handlers",
    "check_store": ".stores",
    "fake_context": ".context",
    "run_handler": ".handlers",
    "run_handler_sync": ".handlers",
    "serving": ".server",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module, __name__), name)
