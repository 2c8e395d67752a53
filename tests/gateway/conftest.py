"""Two pairs of doors, made once: into Atlas, and into a backend that does as it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from clients.build import make
from tests.meta.pages import ROOT
from tests.support.programs import demand
from tests.support.serving import EXAMPLES, serving

from .compare import Verdict, compare
from .doors import Answer, Ask, Door

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PROXY = ROOT / "tests" / "gateway" / "proxy"


class Seen(NamedTuple):
    """A request, both answers, and what they differ by."""

    asked: Ask
    go: Answer
    mirror: Answer
    verdict: Verdict


class Doors:
    """Asks the same at both doors."""

    def __init__(self, go: Door, mirror: Door) -> None:
        self._doors = (go, mirror)
        self._known: dict[int, tuple[Sequence[Ask], list[Seen]]] = {}

    def compare(self, asks: Sequence[Ask]) -> list[Seen]:
        """One request after the other. Raises Unexplained. The answer to requests that were asked before is kept."""
        if id(asks) not in self._known:
            for door in self._doors:
                door.forget()
            self._known[id(asks)] = asks, [self._ask(asked) for asked in asks]
        return self._known[id(asks)][1]

    def _ask(self, asked: Ask) -> Seen:
        go, mirror = (door(asked) for door in self._doors)
        return Seen(asked, go, mirror, compare(asked, go, mirror))

    def close(self) -> None:
        for door in self._doors:
            door.close()


@contextmanager
def proxying(program: Path, backend: str) -> Iterator[str]:
    """The real grpc-gateway in front of a server; its address."""
    with subprocess.Popen([program, backend], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def opened(program: Path, backend: str, mirror: str) -> Iterator[Doors]:
    with proxying(program, backend) as address:
        doors = Doors(Door("door-of-gateway", address), Door("door-of-mirror", mirror))
        try:
            yield doors
        finally:
            doors.close()


@pytest.fixture(scope="session")
def proxy() -> Path:
    """The program, generated and built."""
    demand("go")
    make(PROXY)
    return PROXY / "build" / "proxy"


@pytest.fixture(scope="session")
def atlas(proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Both doors into Atlas."""
    with (
        serving(["serve", "--handlers", str(EXAMPLES)], tmp_path_factory.mktemp("serve")) as server,
        opened(proxy, server.grpc_address, server.http_address) as doors,
    ):
        yield doors


@pytest.fixture(scope="session")
def backend(proxy: Path) -> Iterator[Doors]:
    """Both doors into backend.py."""
    command = [sys.executable, "-m", "tests.gateway.backend"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ports = json.loads(process.stdout.readline())
            with opened(proxy, f"127.0.0.1:{ports['grpc']}", f"127.0.0.1:{ports['http']}") as doors:
                yield doors
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)
