"""Sibling processes, started, watched and stopped together by a parent that does no work itself: `--processes`, and
`--reload`, which is the same with one.

The parent spawns siblings (it never forks them: gRPC does not survive that), starts one anew that died, and hands
signals on. Each leads a session of its own, so that Ctrl-C at a terminal reaches the parent alone, and each sibling
once, by it. The first sibling starts alone, so that a store is migrated and a mistake told once. Each holds an end of a
socket pair: by it the parent learns that it is at work, and it learns that the parent is gone, and drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..observe.logs import get_logger
from .sibling import READY, Sibling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .changes import Changes

MISUSED = 2
"""The exit code of a process that cannot start until somebody mends its modules or its options."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_STEADY = 30.0
"""Seconds of life after which the next start of a sibling comes without a longer pause."""
_RELOAD_GRACE = 2.0
"""Seconds that siblings have to drain when files change; then they are forced."""
_FORCED_GRACE = 10.0

log = get_logger("atlas.siblings")


def this_command() -> list[str]:
    """What starts the command line of this process again, and finds modules where this process does: beside them, `-m`
    puts the working directory before all others, which the console command does not.
    """
    safe = [] if sys.path[:1] == [os.getcwd()] else ["-P"]  # noqa: PTH109 - an entry of sys.path is a string
    return [sys.executable, *safe, "-m", "atlas_grpc.cli", *sys.argv[1:]]


class _Life(NamedTuple):
    """What became of a process: whether it was ever at work, its exit code, and how many seconds it lived."""

    worked: bool
    code: int
    seconds: float


class Siblings:
    """The parent. `command` starts any of them: it learns by `Sibling.of` which one it is, of these names, and which
    `folder` they share.

    `for_ever`: one that ends, however it does, is started again; else only one that was killed is. `one_voice`: the
    stdout of all but the first is thrown away.
    """

    def __init__(
        self,
        command: Sequence[str],
        names: Sequence[str],
        *,
        folder: Path | None = None,
        for_ever: bool = True,
        one_voice: bool = False,
    ) -> None:
        self._command = command
        self._names = names
        self._folder = folder
        self._for_ever = for_ever
        self._one_voice = one_voice
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._told = asyncio.Event()
        """A signal said that this is the end."""
        self._ending = asyncio.Event()
        """Those that run now end, and are not started again."""
        self._code = 0

    async def run(self, changes: Changes | None = None) -> int:
        """Runs until a signal has ended all siblings, they have ended by themselves, or one cannot start: then all end.
        With `changes`, all are started anew after each, and one that cannot start waits for the next. Answers the exit
        code.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._pass_on)
        if changes is None:
            await self._live_together()
            return self._code
        async with changes:
            while not self._told.is_set():
                living = asyncio.create_task(self._live_together())
                changed = asyncio.create_task(changes.next())
                try:
                    await self._until_changed(living, changed)
                finally:
                    changed.cancel()
        return self._code

    async def _until_changed(self, living: asyncio.Task[None], changed: asyncio.Task[list[str]]) -> None:
        """Returns when files changed and all have ended, or when it is the end."""
        told = asyncio.create_task(self._told.wait())
        await asyncio.wait([living, changed], return_when=asyncio.FIRST_COMPLETED)
        if living.done() and not self._told.is_set():
            log.warning("waiting for a change of the files", exit_code=self._code)
            await asyncio.wait([changed, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if changed.done() and not self._told.is_set():
            log.info("files changed: starting anew", files=changed.result())
            await self._end(living)
        await living

    async def _end(self, living: asyncio.Task[None]) -> None:
        """Ends all that run, soon."""
        self._ending.set()
        for seconds in (_RELOAD_GRACE, _FORCED_GRACE):
            self._send(signal.SIGTERM)
            await asyncio.wait([living], timeout=seconds)
            if living.done():
                return
        self._send(signal.SIGKILL)

    async def _live_together(self) -> None:
        """Starts all, and returns when none runs nor is to be started again."""
        if not self._told.is_set():
            self._ending.clear()
        self._code = 0
        first, *rest = self._names
        others: list[asyncio.Task[None]] = []

        def start_others() -> None:
            if not others:
                others.extend(asyncio.create_task(self._keep(name)) for name in rest)

        await self._keep(first, start_others)
        await asyncio.gather(*others)

    async def _keep(self, name: str, at_work: Callable[[], None] | None = None) -> None:
        """Keeps a sibling running. `at_work` is called each time that it is."""
        pause = _FIRST_PAUSE
        lives = 0
        while not self._ending.is_set():
            try:
                life = await self._live(name, at_work)
            except OSError as error:  # for want of memory, processes or files, say
                log.error("a sibling cannot be started yet", sibling=name, error=str(error))
                pause = min(pause * 2, _LONGEST_PAUSE)
                await self._rest(pause)
                continue
            lives += 1
            if self._ending.is_set():
                return
            alone = at_work is not None and lives == 1
            if not life.worked and (alone or life.code == MISUSED):
                self._give_up(life.code)
                return
            if life.code >= 0 and not self._for_ever:
                self._code = self._code or life.code
                return
            if life.code == 0:
                log.info("a sibling ended and is started again", sibling=name)
                pause = _FIRST_PAUSE
            else:
                log.error("a sibling died and is started again", sibling=name, exit_code=life.code)
                pause = min((_FIRST_PAUSE if life.seconds > _STEADY else pause) * 2, _LONGEST_PAUSE)
            await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    def _give_up(self, code: int) -> None:
        """One cannot start, and has said why: the others end too."""
        self._code = code if code >= 0 else 128 - code
        self._ending.set()
        self._send(signal.SIGTERM)

    async def _live(self, name: str, at_work: Callable[[], None] | None) -> _Life:
        """The life of one process."""
        began = time.monotonic()
        mute = self._one_voice and name != self._names[0]
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=os.environ | Sibling(name, theirs, self._folder).environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL if mute else None,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._running[name] = process
            if self._ending.is_set():
                self._send(signal.SIGTERM, process)
            ours.setblocking(False)
            worked = await asyncio.get_running_loop().sock_recv(ours, 1) == READY
            if worked and at_work is not None:
                at_work()
            code = await process.wait()
        del self._running[name]
        return _Life(worked, code, time.monotonic() - began)

    def _pass_on(self) -> None:
        self._told.set()
        self._ending.set()
        # Whichever it was: of SIGINT, one that is still starting would die with a traceback.
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals, *only: asyncio.subprocess.Process) -> None:
        for process in only or tuple(self._running.values()):
            with suppress(ProcessLookupError):  # it has just ended
                process.send_signal(number)
