"""The process that executes handlers for a worker; see `processes`. It imports neither grpc nor protobuf.

The main thread executes handlers, one thread listens to the parent, one sends what the handler reports.
"""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..model import Failed
from .context import JobContext
from .failures import frames, outcome_of, over_memory, worth_logging
from .lifespans import Lifespan, Lifespans, at_once
from .limits import leave_no_core, limited, out_of_memory
from .loading import Origin, find
from .output import Output
from .results import admitted, encode
from .shield import outlive_signals
from .signature import Signature
from .tree import adopt_orphans, end_descendants
from .wire import Ended, Frames, Leave, Said, Start, Stop, ToChild, ToParent, frame, to_child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Content

REPORT_INTERVAL = 0.05
"""Seconds between two reports of one handler."""
_READ = 256 * 1024
_LIBC = ctypes.CDLL(None)


class ChildWorker:
    """Executes what the parent sends, one attempt at a time."""

    def __init__(self, sock: socket.socket, max_result: int) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._starts: queue.SimpleQueue[tuple[Start, JobContext, Output] | None] = queue.SimpleQueue()
        self._news = threading.Event()
        self._current: tuple[JobContext, Output] | None = None
        self._signatures: dict[Origin, Signature] = {}
        self._lifespans: Lifespans | None = None
        self._max_result = max_result
        self._pid = os.getpid()

    def run(self) -> None:
        """Serves until the parent is gone, or wants no more."""
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._report, daemon=True).start()
        while (work := self._starts.get()) is not None:
            start, context, output = work
            ended = self._execute(start, context)
            if os.getpid() != self._pid:  # a copy that the handler forked came back from it, too
                os._exit(1)
            ended.spent |= not end_descendants()
            flush()
            with self._sending:
                output.close()
                while self._send_output(output):
                    pass
                self._current = None
                self._send(ended)
        if self._lifespans is not None:
            at_once(self._lifespans.leave())

    def _execute(self, start: Start, context: JobContext) -> Ended:
        try:
            signature = self._signature(Origin(start.module, start.file, start.qualname))
            context.state = self._state(start.lifespans)

            def conclude(value: Any) -> Content:
                return admitted(encode(value, signature.result), None, self._max_result).result

            with limited(start.memory_limit, start.cpu_limit):
                return Ended(result=signature.perform(start.assignment.payload, context, conclude))
        except BaseException as exc:  # SystemExit and KeyboardInterrupt end the attempt, not the process
            outcome = outcome_of(exc)
            told = frames(exc) if worth_logging(exc) else ""
            if not isinstance(outcome, Failed):
                return Ended(released=outcome)
            spent = out_of_memory(exc)
            if spent and start.memory_limit is not None:
                outcome = over_memory(start.memory_limit)
            return Ended(failed=outcome, frames=told, spent=spent)

    def _state(self, origins: tuple[Origin, ...]) -> Mapping[str, Any]:
        """What the lifespans yielded. Those that failed to begin are tried again by the next attempt."""
        if self._lifespans is None:
            self._lifespans = Lifespans(Lifespan(find(origin)) for origin in origins)
        at_once(self._lifespans.enter())
        return self._lifespans.state

    def _signature(self, origin: Origin) -> Signature:
        signature = self._signatures.get(origin)
        if signature is None:
            signature = self._signatures[origin] = Signature(find(origin))
        return signature

    def _listen(self) -> None:
        try:
            cutter = Frames(sys.maxsize)
            room = memoryview(bytearray(_READ))  # made once: the handler may leave no memory for another
            while size := self._sock.recv_into(room):
                for body in cutter.feed(room[:size]):
                    self._obey(to_child.decode(body))
        finally:  # the parent is gone, or speaks another language
            end_group()

    def _obey(self, message: ToChild) -> None:
        match message:
            case Start():
                output = Output(message.assignment.attempt, self._news.set)
                deadline = None if message.time_left is None else time.monotonic() + message.time_left
                context = JobContext(message.assignment, output, deadline=deadline)
                self._current = context, output
                self._starts.put((message, context, output))
            case Stop():
                current = self._current
                if current is not None and current[0].fence == message.fence:
                    current[0].request_stop()
            case Leave():
                self._starts.put(None)

    def _report(self) -> None:
        while self._news.wait():
            self._news.clear()
            with self._sending, suppress(MemoryError):  # the handler took it all; later there is some again
                current = self._current
                if current is not None:
                    self._send_output(current[1])
            time.sleep(REPORT_INTERVAL)

    def _send_output(self, output: Output) -> bool:
        """Sends what there is, or a good part of it; False when there was nothing."""
        progress, logs = output.take()
        if progress is None and not logs:
            return False
        self._send(Said(progress, logs))
        return True

    def _send(self, message: ToParent) -> None:
        try:
            self._sock.sendall(frame(message))
        except OSError:
            end_group()


def end_group() -> None:
    """Ends this process and whatever it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def die_with(lifeline: int) -> None:
    """Has the kernel kill this process and whatever it started, when the other end of the pipe is closed.

    Unlike PR_SET_PDEATHSIG it takes the whole process group, and unlike a thread that reads the pipe it needs no GIL,
    which a handler in C code may hold for hours. Where it is not to be had, `_listen` does the same a little later.
    """
    os.set_inheritable(lifeline, False)
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def set_up_printing() -> None:
    """A line is written when it is complete: a process that is killed flushes nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False)


def flush() -> None:
    """Writes out what the handler printed, and what a library in C did for it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the handler may have put anything in their places
            stream.flush()
    _LIBC.fflush(None)


def main(descriptor: int, lifeline: int, max_result: int) -> None:
    """Serves the parent at the other end of the socket; never returns."""
    sys.argv[1:] = []
    os.set_inheritable(descriptor, False)
    die_with(lifeline)
    outlive_signals()
    adopt_orphans()
    leave_no_core()
    set_up_printing()
    try:
        ChildWorker(socket.socket(fileno=descriptor), max_result).run()
    except BaseException:  # such as a signal handler of a job, after that job
        traceback.print_exc()
    end_group()  # leaving would wait for threads that handlers left behind
