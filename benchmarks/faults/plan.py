"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Leases and windows in seconds."""

    rounds: int = 1
    cancels: int = 200
    kills: int = 200
    at_a_time: int = 10
    lease: float = 2.0
    poison_lease: float = 30.0
    window: float = 60.0
    warm_up: float = 3.0


NORMAL = Plan()
QUICK = Plan(cancels=5, kills=4, at_a_time=2, lease=1.0, poison_lease=3.0, window=2.0, warm_up=0.5)
