"""The stores that functional tests run on, each test on an empty one.

`ATLAS_TEST_STORES` chooses them by name, separated by commas; all of them when it is not set. A test or a module asks
for them by the fixture `every_store`: it runs once on each, and every server that it starts uses that store.
"""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.support import postgres, redis

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.postgres import PostgresServer
    from tests.support.redis import RedisServer


def _memory(_servers: Servers, _folder: Path) -> str:
    return "memory://"


def _sqlite(_servers: Servers, folder: Path) -> str:
    return f"sqlite:///{folder / 'jobs.db'}"


def _postgresql(servers: Servers, _folder: Path) -> str:
    return f"{servers.postgresql().url()}?schema={servers.new_name()}"


def _valkey(servers: Servers, _folder: Path) -> str:
    return servers.redis("valkey").url(servers.new_name())


def _redis(servers: Servers, _folder: Path) -> str:
    return servers.redis("redis").url(servers.new_name())


class Servers:
    """The database servers of a test run, each started when it is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        self._postgresql: PostgresServer | None = None
        self._redis: dict[str, RedisServer] = {}

    def new_name(self) -> str:
        """A name for a schema, or for keys, that no other test has."""
        return f"t{os.getpid()}_{next(self._numbers)}"

    def postgresql(self) -> PostgresServer:
        if self._postgresql is None:
            self._postgresql = self._stack.enter_context(postgres.running())
        return self._postgresql

    def redis(self, kind: str) -> RedisServer:
        if kind not in self._redis:
            self._redis[kind] = self._stack.enter_context(redis.running(kind))
        return self._redis[kind]

    def url(self, name: str, folder: Path) -> str:
        """The URL of an empty store of that kind."""
        return _MAKERS[name](self, folder)

    def close(self) -> None:
        self._stack.close()


_MAKERS: dict[str, Callable[[Servers, Path], str]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "valkey": _valkey,
    "redis": _redis,
}

STORES = tuple(_MAKERS)
SHARED = ("postgresql", "valkey", "redis")
"""Those that several servers can use at a time."""
DURABLE = ("sqlite", *SHARED)
"""Those that outlive their server."""


def chosen() -> list[str]:
    """The names of the stores to run on."""
    names = os.environ.get("ATLAS_TEST_STORES", "").split(",")
    return [name.strip() for name in names if name.strip()] or list(STORES)
