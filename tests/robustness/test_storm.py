"""kill -9 of the server, again and again, while jobs are submitted and run: nothing is lost, doubled or left behind,
and every watcher has one history without gaps.

`ATLAS_TEST_STORM=full` makes it as large as is promised, `ATLAS_TEST_STORM_SEED` (a number) another storm.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import debian
from tests.support.history import check, summary
from tests.support.served import Served
from tests.support.stores import DURABLE, chosen
from tests.support.storm import HANDLERS, Storm, told_of, wrong_ends

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.storm import Cut

FULL = os.environ.get("ATLAS_TEST_STORM") == "full"
JOBS, KILLS = (10_000, 20) if FULL else (2_000, 5)
SEED = int(os.environ.get("ATLAS_TEST_STORM_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(debian.TIMEOUT)
@pytest.mark.parametrize("every_store", [name for name in chosen() if name in DURABLE], indirect=True)
async def test_a_server_that_is_killed_again_and_again(
    every_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = tmp_path / "executions"
    monkeypatch.setenv("ATLAS_TEST_EXECUTIONS", str(executions))
    flags = ["--store", every_store, "--handlers", HANDLERS, "--lease", "1s", "--slots", "400"]
    server = Served([*flags, "--log-format", "json"], with_spare=True)
    began = time.monotonic()
    try:
        await server.start()
        storm = Storm(server.stub, executions, JOBS, SEED)
        storm.start()
        try:
            cuts = await kill_again_and_again(server, storm)
            await storm.finish()
        finally:
            await storm.stop()
    finally:
        await server.close()
    print(f"{told_of(storm)}; {time.monotonic() - began:.1f} s; at the kills: {[tuple(cut) for cut in cuts]}")
    found = check(storm.history)
    assert not found, summary(found)
    assert wrong_ends(storm) == []
    assert len(storm.history.final) == JOBS
    assert all(cut.running and cut.unfinished for cut in cuts)
    assert any(cut.submitting for cut in cuts)


async def kill_again_and_again(server: Served, storm: Storm) -> list[Cut]:
    """The kills come after a random number of acknowledgements and steps."""
    rng = random.Random(SEED)
    share = JOBS // (KILLS + 1)
    cuts: list[Cut] = []
    for _ in range(KILLS):
        storm.release(share)
        cuts.append(await storm.reaches(storm.told + rng.randrange(1, 2 * share)))
        await server.kill()
        storm.server_died()
        await server.start()
    return cuts
