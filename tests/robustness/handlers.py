"""Handlers that behave badly, for a server under test."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

from atlas_grpc import JobContext, handler


class Unprintable(Exception):
    """Its text is a trap."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Enormous(Exception):
    """Its text has 50 MB."""

    def __str__(self) -> str:
        return "x" * 50_000_000

    __repr__ = __str__


ERRORS: dict[str, type[BaseException]] = {
    "unprintable": Unprintable,
    "enormous": Enormous,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "generator": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "recursion": RecursionError,
    "memory": MemoryError,
    "stop": StopIteration,
    "stop_async": StopAsyncIteration,
    "group": BaseExceptionGroup,
}


def _raise(what: str) -> None:
    kind = ERRORS[what]
    if kind is BaseExceptionGroup:
        raise BaseExceptionGroup("\ud800 many", [Unprintable(), ValueError("\0\udfff")])
    raise kind("\ud800 lone surrogates, and NUL \0")


@handler(retry={"max_attempts": 1})
async def bad_task(what: str) -> None:
    _raise(what)


@handler(retry={"max_attempts": 1})
def bad_thread(what: str) -> None:
    _raise(what)


@handler(retry={"max_attempts": 1}, executor="process")
def bad_process(what: str) -> None:
    _raise(what)


@handler(retry={"max_attempts": 1})
async def bad_result(what: str) -> Any:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    return {
        "nan": float("nan"),
        "huge": 10**400,
        "deep": deep,
        "loop": loop,
        "nul": "a\0b",
        "surrogate": "\ud800",
        "object": object(),
        "large": "x" * 5_000_000,
        "key": {"k\0": 1},
    }[what]


@handler(retry={"max_attempts": 1})
async def bad_output(what: str, *, ctx: JobContext) -> None:
    if what == "progress":
        ctx.progress(float("nan"), float("inf"), "x")
    else:
        ctx.progress(1, 2, "\ud800\0" * 10_000)
        for _ in range(3_000):
            ctx.log("\ud800\0" + "x" * 100_000)


@handler(retry={"max_attempts": 3, "initial_backoff": 0.05}, executor="process")
def suicidal(marker: str) -> int:
    """Kills its process at its first attempt."""
    path = Path(marker)
    tries = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (tries + 1))
    if tries == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


@handler
async def swallows() -> None:
    """Does not care that it is cancelled."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@handler
async def leaves_a_thread() -> None:
    """Is cancelled at once, but what it began in the loop's executor goes on."""
    await asyncio.to_thread(threading.Event().wait)
