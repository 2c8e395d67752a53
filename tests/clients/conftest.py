"""One server for all clients, and two runs of each client's example: without and with trouble."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from clients.build import Client, build
from tests.support import examples
from tests.support.debian import provided
from tests.support.serving import EXAMPLES, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `make run`."""
    with serving(["serve", "--handlers", str(EXAMPLES)], tmp_path_factory.mktemp("serve")) as running:
        yield running


class Builds:
    """Builds the clients of the chosen tests ahead of them, several at a time: no build keeps all processors busy."""

    def __init__(self, wanted: Iterable[Client]) -> None:
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._begun = {
            client.name: self._threads.submit(build, client) for client in wanted if client.missing() is None
        }

    def __call__(self, client: Client) -> None:
        """Returns when it is built. Skips the test when its toolchain cannot be had; on CI it fails instead."""
        demand(client)
        ahead = self._begun.pop(client.name, None)
        if ahead is None or ahead.cancel():
            build(client)
        else:
            ahead.result()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def builds(request: pytest.FixtureRequest) -> Iterator[Builds]:
    chosen = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = {call.params["client"].name: call.params["client"] for call in chosen if call and "client" in call.params}
    made = Builds(wanted.values())
    yield made
    made.close()


class Runs:
    """The runs of this session; each example is run once for all features that a run shows."""

    def __init__(self, address: str, built: Builds) -> None:
        self._address = address
        self._built = built
        self._done: dict[tuple[str, bool], examples.Run] = {}

    def of(self, client: Client, *, trouble: bool) -> examples.Run:
        """Skips the test when the client's toolchain cannot be had; on CI it fails instead."""
        key = (client.name, trouble)
        if key not in self._done:
            self._built(client)
            self._done[key] = examples.run(client, self._address, trouble=trouble)
        return self._done[key]


def demand(client: Client) -> None:
    problem = client.missing()
    if problem and client.debian:
        provided(lambda: None if client.missing() else client, *client.debian)
    elif problem:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{client.name}: {problem}")


@pytest.fixture(scope="session")
def runs(server: Server, builds: Builds) -> Runs:
    return Runs(server.grpc_address, builds)
