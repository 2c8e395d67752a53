"""The workers that stand beside the clients' examples, held to the conformance suite of workers."""

from __future__ import annotations

import pytest

from clients.build import CLIENTS, build, clients
from tests.support.workers import failures

from .conftest import demand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one builds

COMMANDS = {
    "go": f"{CLIENTS}/go/build/worker {{server}}",
    "typescript": f"node {CLIENTS}/typescript/build/src/worker.js {{server}}",
}


@pytest.fixture(scope="module", params=COMMANDS)
def worker(request: pytest.FixtureRequest) -> str:
    """The command of a worker that has been built."""
    (client,) = (client for client in clients() if client.name == request.param)
    demand(client)
    build(client)
    return COMMANDS[client.name]


async def test_a_worker_does_what_it_must(worker: str) -> None:
    assert await failures(worker) == {}
