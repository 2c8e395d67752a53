"""`atlas serve` in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import grpc

from tests.meta.pages import ROOT
from tests.support.programs import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "docs" / "examples" / "archive.py"
"""The handlers of `make run`."""


class Server(NamedTuple):
    """Where a running `atlas serve` listens."""

    grpc_address: str
    http_address: str

    def adapt(self, text: str) -> str:
        """The text with this server's addresses instead of the usual ones."""
        return text.replace("127.0.0.1:50051", self.grpc_address).replace("127.0.0.1:8080", self.http_address)


@contextmanager
def serving(arguments: list[str], folder: Path) -> Iterator[Server]:
    """`atlas` with these arguments, on free ports; its log goes into the folder."""
    server = Server(free_address(), free_address())
    addresses = {"ATLAS_GRPC_ADDRESS": server.grpc_address, "ATLAS_HTTP_ADDRESS": server.http_address}
    with (
        (folder / "serve.log").open("w") as log,
        subprocess.Popen(
            [BIN / "atlas", *arguments], cwd=folder, env=os.environ | addresses, stdout=log, stderr=log
        ) as process,
    ):
        try:
            with grpc.insecure_channel(server.grpc_address) as channel:
                grpc.channel_ready_future(channel).result(timeout=30)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=40)
            finally:
                process.kill()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
