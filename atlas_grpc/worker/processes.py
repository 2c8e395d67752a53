"""Handlers in processes of their own: children that are kept warm, one attempt at a time each.

Why it looks like this. CPU-bound Python needs processes, and a handler in one may be killed: on cancellation, on a
timeout, by the kernel for want of memory. None of that may touch the server, and no child may outlive it.

- **No fork.** gRPC and threads do not survive `fork`. A child is a new interpreter, started by `subprocess` (which uses
  `vfork` and `exec`), that imports the module of the handler again. It never imports grpc.
- **No pickle.** `multiprocessing` pickles what it passes on, and unpickling user data executes it. Here a handler is
  named by module (or file) and qualified name, and data travel as MessagePack over a socket pair (`wire`).
- **A tree each.** A child leads its own session, so that Ctrl-C at the terminal reaches the server alone, and orphans
  below it fall to it, so that it ends with whatever it started (`tree`). What an attempt left running ends with it.
- **What is printed is the job's.** Stdout and stderr of each child are pipes that the parent reads (`capture`). What
  was printed before the child said that the attempt is over is in them then, so each line finds its attempt.
- **Death is seen, not inferred.** A thread waits for each child (`waitid` that leaves the zombie): end of file alone
  would be hidden by a grandchild that inherited the socket. The zombie holds the process id until the group was killed,
  so the signal cannot hit a stranger. What the child had sent before it died is read first.
- **The parent's death is seen by the kernel.** Each child has a pipe whose other end only the parent holds; when it
  closes, the kernel kills the child's group (`_child.die_with`), even while C code holds the child's GIL.

Cost: starting a child takes 0.2 s and more (Pydantic is most of it), an attempt in a warm one 0.25 ms. Idle ones
end after a minute. Prior art: `concurrent.futures` breaks the whole pool when one process dies; Celery's prefork pool
forks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

import msgspec

from ..model import SECOND, Released
from ..options import format_size
from .capture import Capture
from .execution import NEVER, Why, log, log_failure
from .failures import HandlerRaised, died, outcome_of, over_cpu
from .problems import ResultRefused
from .results import admitted
from .shield import shielded
from .tree import MARK, end_marked, end_tree
from .wire import OVERHEAD, Ended, Frames, Leave, Said, Start, Stop, ToChild, frame, to_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..clock import Clock
    from ..model import Failed, Outcome
    from .decorator import Options
    from .execution import Ended as EndedCallback
    from .execution import Execution, Limits
    from .loading import Origin

IDLE_TIME = 60.0
"""Seconds after which a child without work ends."""
LEAVE_TIME = 5.0
"""Seconds that a child has to leave its lifespans."""
_CLOSE_TIME = 5.0
_READ = 256 * 1024
_FOR_WANT_OF_MEMORY = (-signal.SIGABRT, -signal.SIGBUS, -signal.SIGSEGV)
"""How programs in C end that do not look whether they got the memory they asked for."""
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from atlas_grpc.worker._child import main; main(*map(int, sys.argv[2:]))"
)


class Child:
    """A process, and the attempt that it executes."""

    def __init__(
        self, max_result: int, handle: Callable[[Child, Said | Ended], None], gone: Callable[[Child], None]
    ) -> None:
        self._handle = handle
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(max_result + OVERHEAD)
        self._unsent = bytearray()
        self._mark = uuid.uuid4().hex
        self.printed = Capture()
        self._sock, theirs = socket.socketpair()
        self._sock.setblocking(False)
        tied, self._lifeline = os.pipe()
        self.execution: Execution | None = None
        self.idle_since = 0.0
        self.exited = self._loop.create_future()
        path = json.dumps([str(entry) for entry in sys.path])
        command = [sys.executable, "-P", "-c", _BOOT, path, str(theirs.fileno()), str(tied), str(max_result)]
        try:
            stdout, stderr = self.printed.open()
            with shielded():
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=(theirs.fileno(), tied),
                    start_new_session=True,
                    env={**os.environ, MARK: f"{os.environ.get(MARK, '')} {self._mark}"},
                )
        except BaseException:
            self._close_ends()
            raise
        finally:
            theirs.close()
            os.close(tied)
        self._loop.add_reader(self._sock, self._read)
        self.printed.started()
        try:
            Thread(target=self._wait, name=f"atlas-child-{self.pid}", daemon=True).start()
        except RuntimeError:  # the system has no more
            self._clean_up()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToChild) -> None:
        """Sends it now or as soon as the child reads. Raises BrokenPipeError when the child is dead."""
        waiting = bool(self._unsent)
        self._unsent += frame(message)
        if not waiting:
            self._write()

    def kill(self) -> None:
        """Ends the process with all that it started."""
        if not self.exited.done():
            end_tree(self.pid)

    def leave(self) -> None:
        """Ends the process after it has left its lifespans, if it does so in time."""
        with suppress(OSError):
            self.send(Leave())
        self._loop.call_later(LEAVE_TIME, self.kill)

    @property
    def exit_code(self) -> int:
        """The status that the ended process left with, or the number of the signal that ended it, negative."""
        return self._process.returncode

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._unsent.clear()
            self._loop.remove_writer(self._sock)
            raise
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._sock, self._write_more)
        else:
            self._loop.remove_writer(self._sock)

    def _write_more(self) -> None:
        with suppress(OSError):  # it died: `_wait` notices
            self._write()

    def _read(self) -> bool:
        """Takes what is there; False when there is nothing (more)."""
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        try:
            for body in self._frames.feed(data):
                self._handle(self, to_parent.decode(body))
        except (ValueError, msgspec.DecodeError):  # the handler wrote into our socket
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            self.kill()
        return bool(data)

    def _wait(self) -> None:
        try:
            if hasattr(os, "waitid"):
                with suppress(ChildProcessError):  # a handler in a thread waited for any child and took this one
                    os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            else:
                self._process.wait()
            end_marked(self._mark)
        except OSError as exc:  # there are no more file descriptors, say
            log.error("what a process of handlers left behind cannot be looked for: %s", exc.strerror)
        finally:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._exit)

    def _exit(self) -> None:
        while self._read():
            pass
        self.kill()
        self.printed.end()
        self._clean_up()
        self.exited.set_result(None)
        self._gone(self)

    def _clean_up(self) -> None:
        self.kill()
        self._process.wait()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._close_ends()

    def _close_ends(self) -> None:
        self.printed.close()
        self._sock.close()
        os.close(self._lifeline)


class Processes:
    """Runs handlers in children, which enter `lifespans` first. They are started when they are needed; the caller
    bounds their number, and calls `expire` when `look_at` said."""

    def __init__(
        self,
        ended: EndedCallback,
        limits: Limits,
        clock: Clock,
        look_at: Callable[[float], None],
        lifespans: Sequence[Origin] = (),
    ) -> None:
        self._ended = ended
        self._limits = limits
        self._clock = clock
        self._look_at = look_at
        self._lifespans = tuple(lifespans)
        self._children: set[Child] = set()
        self._idle: list[Child] = []

    @property
    def pids(self) -> list[int]:
        """The processes there are."""
        return [child.pid for child in self._children]

    def start(self, execution: Execution) -> None:
        handler = execution.kind.handler
        context = execution.context
        assert handler.origin is not None
        left = None if context is None else context.time_left()
        cpu = handler.options.cpu_limit
        limits = handler.options.memory_limit, None if cpu is None else cpu / SECOND
        message = Start(*handler.origin, execution.assignment, left, *limits, self._lifespans)
        try:
            child = self._idle.pop() if self._idle else self._spawn()
        except (OSError, RuntimeError) as exc:
            log.error("no process can be started: %s", type(exc).__name__)
            self._ended(execution, Released(SECOND))
            return
        child.execution, execution.child = execution, child
        child.printed.begin(execution.output)
        try:
            child.send(message)
        except OSError:  # it died idle, and nothing began
            child.execution = None
            child.printed.begin(None)
            self.start(execution)

    def stop(self, execution: Execution, *, kill: bool) -> None:
        child = execution.child
        if child is None:
            return
        if kill:
            child.kill()
        else:
            with suppress(OSError):
                child.send(Stop(execution.assignment.fence))

    def expire(self, now: float) -> float:
        """Ends children that were idle for too long; returns when to look again."""
        for child in [child for child in self._idle if child.idle_since + IDLE_TIME <= now]:
            self._idle.remove(child)
            self._end(child)
        return min((child.idle_since + IDLE_TIME for child in self._idle), default=NEVER)

    async def close(self) -> None:
        for child in self._children:
            self._end(child)
        if self._children and self._lifespans:
            await asyncio.wait([child.exited for child in self._children], timeout=LEAVE_TIME)
            for child in self._children:
                child.kill()
        if self._children:
            _, late = await asyncio.wait([child.exited for child in self._children], timeout=_CLOSE_TIME)
            if late:
                log.error("%d processes of handlers did not end", len(late))

    def _end(self, child: Child) -> None:
        if self._lifespans and child.execution is None:
            child.leave()
        else:
            child.kill()

    def _spawn(self) -> Child:
        child = Child(self._limits.max_bytes, self._handle, self._gone)
        self._children.add(child)
        return child

    def _handle(self, child: Child, message: Said | Ended) -> None:
        execution = child.execution
        if execution is None:
            return
        if isinstance(message, Said):
            if execution.output is not None:
                execution.output.merge(message.progress, message.logs)
            return
        child.printed.end()
        child.execution = execution.child = None
        if message.spent:
            child.kill()
        else:
            child.idle_since = self._clock.monotonic()
            self._idle.append(child)
            self._look_at(child.idle_since + IDLE_TIME)
        if message.frames and execution.why is Why.RUNNING:
            log_failure(execution, HandlerRaised(message.frames))
        self._ended(execution, self._outcome(message))

    def _outcome(self, message: Ended) -> Outcome:
        if message.result is None:
            return message.failed or message.released or died("no outcome")
        try:
            return admitted(message.result, self._limits.admit, self._limits.max_bytes)
        except ResultRefused as exc:
            return outcome_of(exc)

    def _gone(self, child: Child) -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        execution, child.execution = child.execution, None
        if execution is not None:
            execution.child = None
            self._ended(execution, _death(child.exit_code, execution.kind.handler.options))


def _death(code: int, options: Options) -> Failed:
    """What becomes of an attempt whose process ended with that exit code."""
    if code >= 0:
        return died(f"exit status {code}")
    if code == -signal.SIGXCPU and options.cpu_limit is not None:
        return over_cpu(options.cpu_limit / SECOND)
    try:
        how = signal.Signals(-code).name
    except ValueError:
        how = f"signal {-code}"
    if code in _FOR_WANT_OF_MEMORY and options.memory_limit is not None:
        how += f"; its memory limit is {format_size(options.memory_limit)}"
    elif code == -signal.SIGKILL:
        how += ", as the kernel does when memory runs out"
    return died(how)
