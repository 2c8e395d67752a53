"""The command line: `atlas serve`, `atlas run`, `atlas watch` and the other verbs.

At import only click and the standard library are loaded; gRPC, rich and the server come when a verb needs them.
"""

from __future__ import annotations

from .app import main

__all__ = ["main"]
