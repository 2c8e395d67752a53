"""One server for all clients, and two runs of each client's example: without and with trouble."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from clients.build import Client, build
from tests.support import examples
from tests.support.debian import provided
from tests.support.serving import EXAMPLES, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `make run`."""
    with serving(["serve", "--handlers", str(EXAMPLES)], tmp_path_factory.mktemp("serve")) as running:
        yield running


class Runs:
    """The runs of this session; each example is built and run once for all features that a run shows."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._done: dict[tuple[str, bool], examples.Run] = {}

    def of(self, client: Client, *, trouble: bool) -> examples.Run:
        """Skips the test when the client's toolchain cannot be had; on CI it fails instead."""
        key = (client.name, trouble)
        if key not in self._done:
            demand(client)
            build(client)
            self._done[key] = examples.run(client, self._address, trouble=trouble)
        return self._done[key]


def demand(client: Client) -> None:
    problem = client.missing()
    if problem and client.debian:
        provided(lambda: None if client.missing() else client, *client.debian)
    elif problem:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{client.name}: {problem}")


@pytest.fixture(scope="session")
def runs(server: Server) -> Runs:
    return Runs(server.grpc_address)
