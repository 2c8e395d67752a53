"""Builds the clients whose toolchain is there (`make clients`), or those that are named, several at a time.

What a client needs, shows and runs is declared in its `features.toml`; its Makefile generates the stubs from proto/ and
builds the example, and does nothing when both are up to date.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

CLIENTS = Path(__file__).parent
BIN = Path(sys.prefix, "bin")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client, as its `features.toml` declares it."""

    folder: Path
    language: str
    features: list[str]
    """What its example shows; tests/clients holds it to that."""
    run: list[str]
    """The command of the example, from its folder; the address of a server comes last."""
    programs: list[str]
    """What must be on the PATH for building and running it."""
    probe: list[str]
    """A command that succeeds where the libraries are that its build does not bring; empty: there are none."""
    debian: list[str]
    """The Debian packages that have both; empty: other ways are usual."""

    @property
    def name(self) -> str:
        return self.folder.name

    def missing(self) -> str | None:
        """What of its toolchain is not there."""
        path = environment()["PATH"]
        for program in self.programs:
            if shutil.which(program, path=path) is None:
                return f"{program} is not installed"
        if self.probe and subprocess.run(self.probe, env=environment(), capture_output=True, check=False).returncode:
            return f"`{' '.join(self.probe)}` fails"
        return None


def environment() -> dict[str, str]:
    """For building and running a client: the generators of the virtual environment come first."""
    return os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def clients() -> list[Client]:
    """All clients, by name. Raises KeyError or TypeError for a declaration with a wrong key."""
    found = []
    for path in sorted(CLIENTS.glob("*/features.toml")):
        optional: dict[str, list[str]] = {"probe": [], "debian": []}
        found.append(Client(folder=path.parent, **(optional | tomllib.loads(path.read_text("utf-8")))))
    return found


def build(client: Client) -> None:
    """Generates and builds a client. Raises CalledProcessError, with the output."""
    make(client.folder)


def make(folder: Path) -> None:
    """Runs the Makefile of a folder; two at the same time take turns. Raises CalledProcessError, with the output."""
    lock = folder / "build" / ".lock"
    lock.parent.mkdir(exist_ok=True)
    variables = {name: value for name, value in environment().items() if not name.startswith("MAKE")}
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        subprocess.run(
            ["make", f"--jobs={os.cpu_count() or 1}", "--directory", folder],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="which ones; left out: all whose toolchain is there")
    names = parser.parse_args().names
    chosen = [client for client in clients() if not names or client.name in names]
    if strangers := set(names) - {client.name for client in chosen}:
        parser.error(f"there is no client {', '.join(sorted(strangers))}")
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        building: dict[Future[float], Client] = {}
        for client in chosen:
            problem = client.missing()
            if problem is None:
                building[threads.submit(timed, client)] = client
            else:
                # What is skipped by chance on a developer's machine must not be skipped where it is to be proved.
                failed |= bool(names or os.environ.get("CI"))
                print(f"{client.name:12} left out: {problem}{needs(client)}", flush=True)
        for done in as_completed(building):
            try:
                print(f"{building[done].name:12} {done.result():.1f} s", flush=True)
            except subprocess.CalledProcessError as err:
                failed = True
                print(f"{building[done].name:12} failed\n{err.stdout}", flush=True)
    sys.exit(failed)


def timed(client: Client) -> float:
    """Builds; the seconds that it took."""
    started = time.monotonic()
    build(client)
    return time.monotonic() - started


def needs(client: Client) -> str:
    return f" (Debian: {' '.join(client.debian)})" if client.debian else ""


if __name__ == "__main__":
    main()
