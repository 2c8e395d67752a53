"""The Redis store passes every check, on Valkey and on Redis."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from atlas_grpc.testing.stores import CHECKS
from tests.conformance.stores.factories_redis import RedisFactory
from tests.conformance.stores.test_model import DEEP, StoreMachine
from tests.support import debian, redis

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(debian.TIMEOUT)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    given = os.environ.get("ATLAS_TEST_REDIS")
    if given:
        yield given
        return
    with redis.running("valkey") as server:
        yield server.url().partition("?")[0]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis.running("redis") as server:
        yield server.url().partition("?")[0]


@pytest.mark.parametrize("name", sorted(CHECKS))
async def test_check(name: str, valkey_url: str) -> None:
    await CHECKS[name](RedisFactory(valkey_url))


@pytest.mark.parametrize("name", sorted(CHECKS))
async def test_check_on_redis(name: str, redis_url: str) -> None:
    await CHECKS[name](RedisFactory(redis_url))


def test_model(valkey_url: str) -> None:
    class RedisMachine(StoreMachine):
        factory = RedisFactory(valkey_url)

    run_state_machine_as_test(
        RedisMachine,
        settings=settings(
            max_examples=15 * DEEP,
            stateful_step_count=30 if DEEP == 1 else 100,
            suppress_health_check=list(HealthCheck),
        ),
    )
