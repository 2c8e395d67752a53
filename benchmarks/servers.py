"""The two servers, as processes of their own."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from atlas_grpc.config import Settings

from . import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent
SLOTS = Settings().slots
_START_TIMEOUT = 60.0
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")} | {
    "PYTHONPATH": str(ROOT)
}
"""Without settings of the user's own."""


class Server:
    """A server process. `target` is its gRPC address."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        cpus: list[int],
        *,
        piped: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.target = ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={**_ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else self._log,
            stderr=self._log,
        )
        machine.pin(self.pid, cpus)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def rss(self) -> int:
        """Its resident memory in bytes, 0 where the system does not tell."""
        return machine.rss_bytes(self.pid) or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self._log.close()

    def failed(self) -> RuntimeError:
        """What it said last, as an error."""
        self._log.seek(0)
        return RuntimeError(
            f"the {self.name} server did not start:\n{self._log.read().decode(errors='replace')[-4000:]}"
        )


class Echo(Server):
    """The bare server, answering with these bytes by method."""

    def __init__(self, replies: Mapping[str, bytes], cpus: list[int]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({name: base64.b64encode(body).decode() for name, body in replies.items()}, file)
            file.flush()
            super().__init__("echo", ["-m", "benchmarks.echo", file.name], cpus, piped=True)
            port = self.process.stdout.readline().strip() if self.process.stdout else b""
        if not port:
            self.process.wait()
            raise self.failed()
        self.target = f"127.0.0.1:{int(port)}"


class Atlas(Server):
    """`atlas serve` with handlers of the benchmark and a store, in memory if it is not named."""

    def __init__(
        self, cpus: list[int], *options: str, store: str = "memory://", handlers: str = "benchmarks.handlers"
    ) -> None:
        port = _free_port()
        command = [
            *("-m", "atlas_grpc.cli", "serve", "--store", store, *(("--handlers", handlers) if handlers else ())),
            *("--config", os.devnull, "--grpc-address", f"127.0.0.1:{port}", "--http-address", "off"),
            *("--slots", str(SLOTS), "--max-pending-jobs", "10000000", "--max-finished-jobs", "10000000"),
            *("--max-store-bytes", "64GiB", "--drain-timeout", "0s", "--log-level", "warning", *options),
        ]
        super().__init__("Atlas", command, cpus)
        self.target = f"127.0.0.1:{port}"
        self._await_port(port)

    def _await_port(self, port: int) -> None:
        give_up = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise self.failed()


class Worker(Server):
    """`atlas worker` with the same handlers, or another program that works for a server."""

    def __init__(self, target: str, cpus: list[int], *, slots: int = SLOTS, program: Sequence[str] = ()) -> None:
        handlers = ("-m", "atlas_grpc.cli", "worker", "benchmarks.handlers", "--server", target)
        options = ("--concurrency", str(slots), "--drain-timeout", "0s", "--log-level", "warning")
        super().__init__("worker", program or (*handlers, *options), cpus)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
