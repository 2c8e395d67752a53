"""Handlers that run in processes of their own, for tests of the worker."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import re
import resource
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
def signals_blocked() -> list:
    """The signals that this process has blocked, and as /proc shows them, those that a program has that it starts."""
    program = subprocess.run(["grep", "SigBlk", "/proc/self/status"], capture_output=True, text=True, check=True)
    return [sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), program.stdout.split()[1][-8:]]


@handler(executor="process")
def holds_gil(*, ctx: JobContext) -> None:
    """Spends years in C without giving the interpreter away."""
    ctx.progress(1)
    program = subprocess.Popen(["sleep", "600"])
    print(f"pids {os.getpid()} {program.pid}", file=sys.stderr)
    re.match(r"(a+)+$", "a" * 60 + "b")


@handler(executor="process")
def talkative(lines: int, *, ctx: JobContext) -> None:
    for number in range(lines):
        ctx.log(f"line {number}")
        ctx.progress(number + 1, lines)


@handler(executor="process")
def forks() -> str:
    """Comes back twice: the copy first."""
    copy = os.fork()
    if copy == 0:
        return "the copy"
    return f"the original saw {os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])}"


@handler(executor="process")
def leaves_traps() -> int:
    """Leaves a thread that never ends, and a signal handler that raises."""
    threading.Thread(target=threading.Event().wait).start()
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    return os.getpid()


@handler(executor="process")
def prints(how: str = "", times: int = 1) -> None:
    """Prints in as many ways as there are."""
    match how:
        case "both":
            print("to stdout")
            print("to stderr", file=sys.stderr)
            subprocess.run(["sh", "-c", "echo by a program; echo its stderr >&2"], check=True)
        case "many":
            sys.stdout.write("".join(f"line {n}\n" for n in range(times)))
        case "unended":
            sys.stdout.write("no end")
        case "odd":
            sys.stdout.buffer.write(b"\xff\xfe bad\n\nnul \0 and \xc3\xbc\r\n 10%\r 50%\r100%\n")
            sys.stdout.flush()
        case "long":
            sys.stdout.write("\N{EURO SIGN}" * times)
        case "c":
            ctypes.CDLL(None).puts(b"by a library")
        case "dies":
            print("last words")
            os.write(1, b"and half a l")
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            print("printed")
            time.sleep(600)


@handler(executor="process")
def logs(*, ctx: JobContext) -> None:
    """By Python's own logging."""
    ctx.logger.debug("%s of %d", "one", 3)
    ctx.logger.warning("two")
    below = ctx.logger.getChild("pool").getChild("connection")
    below.info("by %s", below.name)
    try:
        raise ValueError("three")
    except ValueError:
        ctx.logger.exception("it raised")
    logging.getLogger("elsewhere").warning("not set up")


@handler(executor="process")
def leaves(how: str, *, ctx: JobContext) -> None:
    """Leaves a program that prints now and then, in one of the ways to get away; stays, if it is told to."""
    daemon = "" if how.startswith("plain") else "setsid "
    environ = {"PATH": os.environ["PATH"]} if "bare" in how else None
    go_on = "exec sleep 600" if "silent" in how else "while :; do echo still here; sleep 0.01; done"
    talk = f"{daemon}sh -c 'echo $$ >&2; exec 2>&-; {go_on}' &"
    with subprocess.Popen(["sh", "-c", talk], stderr=subprocess.PIPE, env=environ, text=True) as program:
        assert program.stderr
        ctx.info(f"pid {program.stderr.readline().strip()}")
    if how.endswith("stays"):
        time.sleep(600)


@handler(executor="process")
def stuck() -> int:
    """Leaves something behind that nobody can end, as far as its process can tell."""
    from atlas_grpc.worker import _child

    _child.end_descendants = lambda: False
    return os.getpid()


@handler(executor="process")
def quiet() -> int:
    """Prints nothing for a moment in which somebody else could."""
    time.sleep(0.1)
    return os.getpid()


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


@handler(executor="process", memory_limit="64MiB")
def eats(mib: int, how: str = "") -> int:
    """Takes so much memory in one of many ways; its process, or the exit code of a program that does it."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    match how:
        case "pieces":
            _ = [bytes(1000) for _ in range(mib * 1024)]
        case "mapped":
            mmap.mmap(-1, mib << 20, flags=private)
        case "reserved":
            mmap.mmap(-1, mib << 20, flags=private, prot=mmap.PROT_READ)
        case "caught":
            try:
                bytearray(mib << 20)
            except MemoryError:
                return os.getpid()
        case "aborts":
            try:
                bytearray(mib << 20)
            except MemoryError:
                os.abort()
        case "program":
            return subprocess.run([sys.executable, "-c", f"bytearray({mib} << 20)"], check=False).returncode
        case _:
            bytearray(mib << 20)
    return os.getpid()


@handler(executor="process")
def eats_freely(mib: int) -> int:
    bytearray(mib << 20)
    return os.getpid()


@handler(executor="process", cpu_limit=1)
def burns(seconds: float, how: str = "") -> int:
    """Uses so much processor time."""
    print("begun")
    if how == "c":
        re.match(r"(a+)+$", "a" * 60 + "b")
    if how == "program":
        burn = f"import time\nwhile time.process_time() < {seconds}: pass"
        return subprocess.run([sys.executable, "-c", burn], check=False).returncode
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return os.getpid()


@handler(executor="process")
def soft_limits() -> list[int]:
    return [resource.getrlimit(which)[0] for which in (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_CORE)]
