"""The engines, as processes of their own in fresh folders, with durability as `docs/stores.md` has it."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FLUSHES = 200
_PATIENCE = 60
"""Seconds that a store waits for its engine: one that is slow gives a bad figure, not none."""
_REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction")


@dataclass
class Engine:
    """What a store is kept in."""

    name: str
    url: Callable[[int], str]
    """The URL of the empty store of a number."""
    settings: str
    """Its version and durability, for the report."""
    pid: int = 0
    """Its main process, 0 where there is none."""
    plain: str = ""
    """Which plain queue it has, "" for none."""
    address: str = ""
    """Where that is."""
    connections: int = 1
    """How many a store of Atlas uses for calls, unless told otherwise."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_url(self) -> str:
        """The URL of a store that is empty."""
        return self.url(next(self._numbers))


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """An engine, stopped and removed at the end. Raises RuntimeError when it cannot be had."""
    with ExitStack() as stack:
        try:
            engine = _ENGINES[name](stack)
        except (pytest.skip.Exception, pytest.fail.Exception) as error:  # a test would be skipped
            raise RuntimeError(str(error)) from error
        yield engine


def _folder(stack: ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="atlas-bench-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _memory(_stack: ExitStack) -> Engine:
    return Engine("memory", lambda _: "memory://", "nothing is kept")


def _sqlite(stack: ExitStack) -> Engine:
    import sqlite3

    folder = _folder(stack)
    return Engine(
        "sqlite",
        lambda number: f"sqlite:///{folder / f'{number}.db'}",
        f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL",
        plain="sqlite",
        address=str(folder / "plain.db"),
    )


def _postgresql(stack: ExitStack) -> Engine:
    from atlas_grpc.stores.postgres.options import parse
    from tests.support import postgres

    server = stack.enter_context(postgres.running(fsync=True))
    return Engine(
        "postgresql",
        lambda number: f"{server.url()}?schema=bench_{number}&timeout={_PATIENCE}",
        f"{server.version()}, fsync=on, synchronous_commit=on, shared_buffers=128MB, max_wal_size=4GB, over TCP",
        pid=server.pid,
        plain="postgresql",
        address=server.url(),
        connections=parse(server.url()).pool,
    )


def _redis(kind: str) -> Callable[[ExitStack], Engine]:
    def start(stack: ExitStack) -> Engine:
        from atlas_grpc.stores.redis.url import Options
        from tests.support import redis

        server = stack.enter_context(redis.running(kind, *_REDIS_OPTIONS))
        with server.client() as client:
            told = client.info("server")
        version = told.get(f"{kind}_version", told["redis_version"])
        return Engine(
            kind,
            lambda number: server.url(f"bench{number}", timeout=_PATIENCE),
            f"{kind.capitalize()} {version}, appendonly=yes, appendfsync=everysec, over a Unix socket",
            pid=server.pid,
            plain="redis",
            address=str(server.socket),
            connections=Options().pool,
        )

    return start


_ENGINES: dict[str, Callable[[ExitStack], Engine]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "valkey": _redis("valkey"),
    "redis": _redis("redis"),
}
NAMES = tuple(_ENGINES)


def flush_ms() -> float:
    """How long the disk of temporary files takes to flush 8 KB, in the median."""
    took = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_FLUSHES):
            file.write(bytes(8192))
            start = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000
