"""A database server's clock, seen from far away."""

from __future__ import annotations

import pytest

from atlas_grpc.errors import Unavailable
from atlas_grpc.model import SECOND
from atlas_grpc.stores.server_clock import ServerClock
from atlas_grpc.testing import FakeClock

NOON = 1_800_000_000 * SECOND


def _ask(clock: FakeClock, server: ServerClock, server_time: int, way: float = 0.0) -> None:
    """A request that takes `way` seconds and was answered in the middle of it."""
    began = server.began()
    clock.tick(round(way * SECOND))
    server.sample(began, server_time)


def test_it_is_not_known_before_the_first_sample():
    with pytest.raises(Unavailable):
        ServerClock(FakeClock()).now()


class SteppedClock(FakeClock):
    """A machine whose wall clock is set."""

    step = 0

    def now(self) -> int:
        return super().now() + self.step


def test_it_counts_on_without_the_local_wall_clock():
    clock = SteppedClock()
    server = ServerClock(clock)
    _ask(clock, server, NOON)
    clock.tick(5 * SECOND)
    assert server.now() == NOON + 5 * SECOND
    clock.step = 7200 * SECOND
    assert server.now() == NOON + 5 * SECOND


def test_the_shortest_way_is_trusted():
    clock = FakeClock()
    server = ServerClock(clock)
    _ask(clock, server, NOON + 100_000, way=0.2)
    clock.tick(SECOND)
    _ask(clock, server, NOON + 1_200_900, way=0.002)
    exact = server.now()
    assert exact == NOON + 1_201_900
    _ask(clock, server, NOON + 1_250_000, way=0.4)
    assert server.now() == exact + 400_000, "a worse sample changes nothing"


def test_a_better_sample_does_not_turn_it_back():
    clock = FakeClock()
    server = ServerClock(clock)
    _ask(clock, server, NOON + 500_000, way=1.0)
    shown = server.now()
    _ask(clock, server, NOON + 700_000, way=0.0)
    assert server.now() == shown
    clock.tick(SECOND)
    assert server.now() == NOON + 700_000 + SECOND


def test_a_step_of_the_server_is_followed():
    clock = FakeClock()
    server = ServerClock(clock)
    _ask(clock, server, NOON)
    server.now()
    _ask(clock, server, NOON - 7200 * SECOND, way=0.5)
    assert abs(server.now() - (NOON - 7200 * SECOND)) <= SECOND


def test_an_old_sample_gives_way_to_a_slightly_worse_one():
    clock = FakeClock()
    server = ServerClock(clock)
    _ask(clock, server, NOON)
    clock.tick(3600 * SECOND)
    _ask(clock, server, NOON + 3600 * SECOND + 300_000, way=0.6)
    assert server.now() == NOON + 3600 * SECOND + 600_000
