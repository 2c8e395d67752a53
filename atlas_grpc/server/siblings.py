"""Several server processes on one port: started, watched and stopped together by a parent that serves nothing itself.

Python keeps one core busy a process; a store that servers share lets several serve as one. The parent reserves the
ports, spawns the siblings (it never forks them: gRPC does not survive that) with `--reuse-port`, so that the kernel
spreads connections over them, starts one anew that died, and hands signals on. The first sibling starts alone, so that
a store is migrated and a mistake told once. Each holds an end of a socket pair: by it the parent learns that it serves,
and it learns that the parent is gone, and drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..observe.logs import get_logger
from ..options import parse_address
from .listening import AddressInUse
from .sibling import READY, Sibling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..config import Settings

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_STEADY = 30.0
"""Seconds of life after which the next start of a sibling comes without a longer pause."""

log = get_logger("atlas.siblings")


def reserve(address: str) -> tuple[list[socket.socket], str]:
    """Reserves a TCP address for processes that share it, by sockets that never listen. Answers them, and the address
    with its real port. Raises AddressInUse, also where others share that port already, and for a Unix socket.
    """
    place = parse_address(address)
    if place.path:
        raise AddressInUse(f"cannot listen on {address} with several processes: a Unix socket has one listener")
    held: list[socket.socket] = []
    port = place.port
    try:
        for family, kind, protocol, _, found in socket.getaddrinfo(place.host, port, type=socket.SOCK_STREAM):
            where = (found[0], port, *found[2:])
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                port = probe.getsockname()[1]
            sock = socket.socket(family, kind, protocol)
            held.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((found[0], port, *found[2:]))
    except OSError as error:
        for sock in held:
            sock.close()
        raise AddressInUse(f"cannot listen on {address}: {error.strerror or error}") from None
    return held, f"{address.rpartition(':')[0]}:{port}"


class Siblings:
    """The parent of `settings.processes` siblings. `command` starts one, with the flags it is given beside its own."""

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self._count = settings.processes
        self._addresses = {"--grpc-address": settings.grpc_address, "--http-address": settings.http_address}
        self._command = command
        self._reserved: list[socket.socket] = []
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Runs until a signal has ended all siblings, or until the first one cannot start; answers the exit code.

        Raises AddressInUse.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._pass_on, number)
        try:
            for flag, address in self._addresses.items():
                if address != "off":
                    sockets, self._addresses[flag] = reserve(address)
                    self._reserved += sockets
            with tempfile.TemporaryDirectory(prefix="atlas-") as folder:
                await self._run(Path(folder))
        finally:
            for sock in self._reserved:
                sock.close()
        return self._code

    async def _run(self, folder: Path) -> None:
        others: list[asyncio.Task[None]] = []

        def start_others() -> None:
            names = map(str, range(1, self._count)) if not others else ()
            others.extend(asyncio.create_task(self._keep(name, folder)) for name in names)

        await self._keep("0", folder, start_others)
        await asyncio.gather(*others)

    async def _keep(self, name: str, folder: Path, started: Callable[[], None] | None = None) -> None:
        """Keeps a sibling running until all are to stop. The one that others wait for ends all if it cannot start."""
        pause = _FIRST_PAUSE
        first = True
        while not self._stopping.is_set():
            began = time.monotonic()
            served, code = await self._live(name, folder, started)
            if self._stopping.is_set():
                return
            if started is not None and not served and first:
                self._code = code
                return
            first = False
            log.error("a sibling died and is started again", sibling=name, exit_code=code)
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY else min(pause * 2, _LONGEST_PAUSE)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self, name: str, folder: Path, started: Callable[[], None] | None) -> tuple[bool, int]:
        """The life of one process: whether it ever served, and its exit code."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    *(part for pair in self._addresses.items() for part in pair),
                    "--processes=1",
                    "--reuse-port",
                    env=os.environ | Sibling(name, folder, theirs).environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=None if name == "0" else subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._running[name] = process
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            ours.setblocking(False)
            served = await asyncio.get_running_loop().sock_recv(ours, 1) == READY
            if served and started is not None:
                started()
            code = await process.wait()
        del self._running[name]
        return served, code

    def _pass_on(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._running.values():
            process.send_signal(number)
