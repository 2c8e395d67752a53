"""`run_handler` does what a worker would do."""

# No `from __future__ import annotations`: what stands in functions here is in no module for annotations to be found.

import pytest

from atlas_grpc import handler, middleware
from atlas_grpc.testing import run_handler
from tests.unit.worker.test_middleware_results import RETURNED, passes


@pytest.mark.parametrize(("fn", "expected"), RETURNED)
@pytest.mark.parametrize("include", [[], [passes]])
async def test_a_result_is_made_json_once_before_the_clean_up(fn, expected, include):
    assert (await run_handler(fn, include=include)).result == expected


async def test_a_result_that_a_middleware_changed_in_place_is_the_result():
    @handler
    async def makes() -> dict[str, int]:
        return {"made": 1}

    @middleware
    async def adds(ctx, call_next):
        result = await call_next()
        result["added"] = 2
        return result

    assert (await run_handler(makes, include=[adds])).result == {"made": 1, "added": 2}
