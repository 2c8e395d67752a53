"""`atlas serve` as several processes on the same ports, or as one that is started anew when its handlers change.

Python keeps one core busy a process; a store that servers share lets several serve as one. The parent reserves the
ports, and starts the siblings with `--reuse-port`, so that the kernel spreads connections over them.
"""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..options import parse_address
from ..process.siblings import Siblings, this_command
from .listening import AddressInUse

if TYPE_CHECKING:
    from ..config import Settings
    from ..process.changes import Changes


async def serve_together(settings: Settings, changes: Changes | None) -> int:
    """Watches over `settings.processes` servers until they have ended; answers the exit code. Raises AddressInUse."""
    command = this_command()
    if settings.processes == 1:
        return await Siblings(command, ["0"]).run(changes)
    with ExitStack() as stack:
        for flag, address in (("--grpc-address", settings.grpc_address), ("--http-address", settings.http_address)):
            real = address
            if address != "off":
                sockets, real = reserve(address)
                for sock in sockets:
                    stack.enter_context(sock)
            command += [flag, real]
        command += ["--processes=1", "--reuse-port"]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atlas-")))
        names = [str(number) for number in range(settings.processes)]
        return await Siblings(command, names, folder=folder, one_voice=True).run(changes)


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
