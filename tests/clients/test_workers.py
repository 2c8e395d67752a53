"""The workers that stand beside the clients' examples, held to the conformance suite of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clients.build import CLIENTS, clients
from tests.support.workers import failures

if TYPE_CHECKING:
    from .conftest import Builds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one builds

COMMANDS = {
    "go": f"{CLIENTS}/go/build/worker {{server}}",
    "typescript": f"node {CLIENTS}/typescript/build/src/worker.js {{server}}",
}


@pytest.fixture(scope="module", params=COMMANDS)
def worker(request: pytest.FixtureRequest, builds: Builds) -> str:
    """The command of a worker that has been built."""
    (client,) = (client for client in clients() if client.name == request.param)
    builds(client)
    return COMMANDS[client.name]


async def test_a_worker_does_what_it_must(worker: str) -> None:
    assert await failures(worker) == {}
