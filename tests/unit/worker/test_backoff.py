"""The pauses between two tries."""

from __future__ import annotations

import random

from atlas_grpc.clock import SystemClock
from atlas_grpc.worker.backoff import Backoff


def test_pauses_grow_and_stay_below_a_second_however_long_the_outage() -> None:
    backoff = Backoff(SystemClock(), random.Random(1))
    pauses = [backoff.next() for _ in range(1_000)]
    assert 0.05 <= pauses[0] <= 0.1
    assert min(pauses[4:]) >= 0.4
    assert max(pauses) < 1
    backoff.reset()
    assert backoff.next() <= 0.1
