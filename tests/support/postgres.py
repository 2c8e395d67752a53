"""A PostgreSQL server for tests: Debian's, on a free port of the loopback and a socket, as a user that is not root.

`ATLAS_TEST_POSTGRES` (a URL) names another one to use instead, where that is enough.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.debian import provided

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
_USERS = ("postgres", "nobody")
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 128MB
max_wal_size = 4GB
checkpoint_timeout = 30min
fsync = {fsync}
log_min_messages = fatal
"""


def binaries() -> Path:
    """The folder of initdb and postgres; skips the test, or fails it in CI, when they cannot be had."""
    return provided(_find, "postgresql")


def _find() -> Path | None:
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *(Path(found).parent for found in _on_path())]
    fitting = [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]
    return max(fitting, key=lambda folder: folder.parent.name, default=None)


def _on_path() -> list[str]:
    found = shutil.which("initdb")
    return [] if found is None else [str(Path(found).resolve())]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for_port(port: int) -> None:
    """Returns when somebody takes connections there."""
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > until:
            raise TimeoutError(f"nobody listens on port {port}")
        time.sleep(0.01)


def unprivileged() -> list[str]:
    """What to put before a command that refuses to be run by root."""
    if os.geteuid() != 0:
        return []
    names = [line.split(":")[0] for line in Path("/etc/passwd").read_text("utf-8").splitlines()]
    user = next(name for name in _USERS if name in names)
    return ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups"]


def _group(user: str) -> str:
    return subprocess.run(["id", "-gn", user], capture_output=True, text=True, check=True).stdout.strip()


def give_away(folder: Path) -> None:
    """Lets the unprivileged user write there."""
    command = unprivileged()
    if command:
        shutil.chown(folder, command[1].removeprefix("--reuid="), command[2].removeprefix("--regid="))


class PostgresServer:
    """A cluster in a folder of its own. It survives `kill` and `start`."""

    def __init__(self, folder: Path, *, fsync: bool = False, settings: str = "") -> None:
        self.folder = folder
        self._bin = binaries()
        self._data = folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        give_away(folder)
        self._run(
            "initdb", "-D", str(self._data), "-U", "atlas", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write(_CONFIGURATION.format(fsync="on" if fsync else "off"))
            config.write(f"port = {self.port}\nunix_socket_directories = '{folder}'\n{settings}\n")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def version(self) -> str:
        told = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)
        return told.stdout.strip().replace(" (PostgreSQL)", "").replace("postgres", "PostgreSQL")

    def url(self, database: str = "postgres", *, port: int | None = None, user: str = "atlas") -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*unprivileged(), str(self._bin / program), *arguments]
        subprocess.run(command, cwd="/", capture_output=True, timeout=PATIENCE, check=True)

    def start(self) -> None:
        """Returns when the server takes connections."""
        command = [*unprivileged(), str(self._bin / "postgres"), "-D", str(self._data)]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text("utf-8")[-2000:])
            time.sleep(0.01)

    def is_ready(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, timeout=PATIENCE, check=False).returncode == 0

    def kill(self) -> None:
        """As a power cut would, but for the disk's cache: every process at once."""
        process = self._process
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
        for pid in [process.pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE)
        self._process = None
        for pid in map(int, children):
            # The next server refuses to start while an orphan still has the shared memory.
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.005)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)


@contextlib.contextmanager
def running(*, fsync: bool = False, settings: str = "") -> Iterator[PostgresServer]:
    """A new server, stopped and removed at the end. `settings` are lines of its configuration."""
    folder = Path(tempfile.mkdtemp(prefix="atlas-pg-"))
    try:
        server = PostgresServer(folder, fsync=fsync, settings=settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
