"""The SQLite store passes every check that is not for stores that several servers share."""

from __future__ import annotations

import pytest

from atlas_grpc.testing.stores import CHECKS, CheckSkipped
from tests.conformance.stores.factories_sqlite import SqliteFactory

SHARED = {
    "two_stores_see_one_truth",
    "two_stores_race",
    "two_stores_share_documents_and_sessions",
    "two_stores_keep_the_bound_of_a_kind",
}
"""What this store does not promise: one file serves one server."""


@pytest.mark.parametrize("name", sorted(CHECKS.keys() - SHARED))
async def test_check(name: str) -> None:
    await CHECKS[name](SqliteFactory())


@pytest.mark.parametrize("name", sorted(SHARED))
async def test_a_check_that_does_not_apply_says_so(name: str) -> None:
    with pytest.raises(CheckSkipped):
        await CHECKS[name](SqliteFactory())
