"""A whole Atlas server in this process, on free ports of the loopback interface."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..server.app import AtlasServer
from ..worker.builtin import sleep
from ..worker.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from ..clock import Clock

_DEFAULTS: dict[str, Any] = {"grpc_address": "127.0.0.1:0", "http_address": "off", "name": "test"}


@asynccontextmanager
async def serving(
    *handlers: Callable[..., Any] | Registry | str,
    clock: Clock | None = None,
    grace: float = 5.0,
    overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
    **options: Any,
) -> AsyncIterator[AtlasServer]:
    """Runs a server with the built-in types and `handlers` (functions, registries, modules or files; middleware and
    lifespans too) until the block ends.

    `overrides`: what stands in for dependencies of the handlers; those in processes cannot have any. `options` are
    those of `atlas_grpc.config.Settings`; the store is that of the variable ATLAS_STORE when it is set. The server's
    address is `server.grpc_address`; with `http_address="127.0.0.1:0"` there is `server.http.port` too.
    """
    registry = Registry(overrides=overrides)
    registry.add(sleep)
    for item in handlers:
        if isinstance(item, str):
            registry.load(item)
        else:
            registry.include(item)
    store = {"store": os.environ["ATLAS_STORE"]} if os.environ.get("ATLAS_STORE") else {}
    server = AtlasServer(Settings(**{**_DEFAULTS, **store, **options}), registry, clock=clock)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace)
