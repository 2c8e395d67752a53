"""Handlers that run in processes of their own, for tests of the worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from atlas_grpc.errors import FailNow
from atlas_grpc.worker import JobContext, handler


@dataclass
class Point:
    x: int
    y: int = 0


@handler(executor="process")
def add(a: int, b: int = 1) -> int:
    return a + b


@handler(executor="process")
def mirror(point: Point, ctx: JobContext) -> Point:
    return Point(point.y, point.x)


@handler(executor="process")
def blob(data: bytes) -> bytes:
    return data[::-1]


@handler(executor="process")
def about(*, ctx: JobContext) -> dict:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "forbidden": sorted(name for name in ("grpc", "google.protobuf") if name in sys.modules),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "context": [ctx.id, ctx.namespace, ctx.type, ctx.queue, dict(ctx.labels), ctx.attempt, ctx.max_attempts],
        "fence": ctx.fence,
        "traceparent": ctx.traceparent,
        "left": ctx.time_left(),
    }


@handler(executor="process")
def die(how: str) -> None:
    if how == "exit":
        os._exit(7)
    if how == "sys.exit":
        sys.exit(3)
    os.kill(os.getpid(), getattr(signal, how))


@handler(executor="process")
def obedient(*, ctx: JobContext) -> None:
    ctx.info("begun")
    ctx.wait_cancelled(60)
    ctx.raise_if_cancelled()


@handler(executor="process")
def stubborn(*, ctx: JobContext) -> None:
    ctx.info(f"pid {os.getpid()}")
    while True:
        time.sleep(60)


@handler(executor="process")
def parent_of(*, ctx: JobContext) -> None:
    """Starts a program and waits for it."""
    program = subprocess.Popen(["sleep", "600"])
    ctx.info(f"pids {os.getpid()} {program.pid}")
    program.wait()


@handler(executor="process")
def holds_gil(*, ctx: JobContext) -> None:
    """Spends years in C without giving the interpreter away."""
    ctx.progress(1)
    program = subprocess.Popen(["sleep", "600"])
    print(f"pids {os.getpid()} {program.pid}", file=sys.stderr, flush=True)
    re.match(r"(a+)+$", "a" * 60 + "b")


@handler(executor="process")
def talkative(lines: int, *, ctx: JobContext) -> None:
    for number in range(lines):
        ctx.log(f"line {number}")
        ctx.progress(number + 1, lines)


@handler(executor="process")
def forks(*, ctx: JobContext) -> str:
    """Comes back twice: the copy once it got SIGUSR1."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    copy = os.fork()
    if copy == 0:
        signal.sigwait([signal.SIGUSR1])
        return "the copy"
    ctx.info(str(copy))
    return "the original"


@handler(executor="process")
def leaves_traps() -> int:
    """Leaves a thread that never ends, and a signal handler that raises."""
    threading.Thread(target=threading.Event().wait).start()
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    return os.getpid()


@handler(executor="process")
def prints() -> None:
    print("printed")
    time.sleep(600)


@handler(executor="process")
def signals(how: str, *, ctx: JobContext) -> object:
    match how:
        case "give_back":
            return ctx.give_back(2.5)
        case "retry_in":
            return ctx.retry_in(1.5, "later")
        case "fail":
            raise FailNow("never", reason="NO_USE")
        case "value":
            raise ValueError("wrong")
        case "nan":
            return float("nan")
        case _:
            return "x" * 2_000_000
