"""The PostgreSQL store passes every check, alone and behind pgbouncer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from atlas_grpc.testing.stores import CHECKS, CheckSkipped
from tests.conformance.stores.factories_postgres import PostgresFactory
from tests.conformance.stores.test_model import DEEP, StoreMachine
from tests.support import debian, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(debian.TIMEOUT)

DOES_NOT_APPLY = {
    "a_cursor_that_is_too_old_is_refused": "nothing but deletions is ever forgotten",
    "the_oldest_finished_go_by_count": "finished jobs go by their retention alone",
    "a_new_run_is_not_forgotten": "the same",
    "the_first_to_end_go_first": "the same",
    "the_oldest_finished_go_by_size": "the same",
    "results_count_too": "the same",
}


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    given = os.environ.get("ATLAS_TEST_POSTGRES")
    if given:
        yield given
        return
    with postgres.running() as server:
        yield server.url()


@pytest.mark.parametrize("name", sorted(CHECKS.keys() - DOES_NOT_APPLY.keys()))
async def test_check(name: str, url: str) -> None:
    await CHECKS[name](PostgresFactory(url))


@pytest.mark.parametrize("name", sorted(DOES_NOT_APPLY))
async def test_a_check_that_does_not_apply_says_so(name: str) -> None:
    with pytest.raises(CheckSkipped):
        await CHECKS[name](PostgresFactory("postgresql://unused"))


def test_model(url: str) -> None:
    class PostgresMachine(StoreMachine):
        factory = PostgresFactory(url)

    run_state_machine_as_test(
        PostgresMachine,
        settings=settings(
            max_examples=15 * DEEP,
            stateful_step_count=30 if DEEP == 1 else 100,
            suppress_health_check=list(HealthCheck),
        ),
    )
