"""The conformance suite of stores: what every implementation of `atlas_grpc.stores.base.Store` must do, check by check.

    from atlas_grpc.testing.stores import CHECKS, CheckSkipped, check_store

    await check_store(MyFactory())                      # all that applies; raises an ExceptionGroup of what failed

    @pytest.mark.parametrize("name", CHECKS)            # or one test for each check
    async def test_store(name):
        try:
            await CHECKS[name](MyFactory())
        except CheckSkipped as skipped:
            pytest.skip(str(skipped))

Each check makes a store of its own through the factory and needs nothing but the protocol. Where time must pass, it
waits for the store's clock; a factory whose clock obeys it overrides `StoreFactory.pass_time`. What is particular to
one store (a crash in mid write, a stalled writer, its durability settings) is for that store's own tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (  # noqa: F401 - they register
    _bounds,
    _claims,
    _documents,
    _feed,
    _listing,
    _output,
    _records,
    _reopen,
    _sessions,
    _timers,
)
from ._kit import CHECKS as _CHECKS
from ._kit import Check, CheckSkipped, StoreFactory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CHECKS", "Check", "CheckSkipped", "StoreFactory", "check_store"]

CHECKS: Mapping[str, Check] = _CHECKS
"""Every check by its name."""


async def check_store(factory: StoreFactory, *, only: Iterable[str] | None = None) -> None:
    """Runs all checks, or those named in `only`, one after the other; those that the factory cannot serve are left out.

    Raises an ExceptionGroup with one error for each check that failed, and its name as the note of the error. Raises
    KeyError for a name that is no check.
    """
    chosen = {name: CHECKS[name] for name in (CHECKS if only is None else only)}
    failed: list[Exception] = []
    for name, run in chosen.items():
        try:
            await run(factory)
        except CheckSkipped:
            continue
        except Exception as error:
            error.add_note(f"check: {name}")
            failed.append(error)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(chosen)} checks of the store failed", failed)
