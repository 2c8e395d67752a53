"""The list of checks, and how one says what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._world import World

    Run = Callable[[World], Awaitable[None]]

CLAIMS = {
    "progress": "tells progress",
    "logs": "hands in log lines",
    "concurrency": "executes several jobs at a time",
    "drain": "ends in order at SIGTERM",
}
"""What a worker may leave out, when it says so."""


class Broken(Exception):
    """What the worker did wrong."""


@dataclass(frozen=True)
class Check:
    """`why` is one sentence for people; `claim` names what a worker may leave out, empty for what all must do."""

    name: str
    why: str
    claim: str
    settings: dict[str, Any]
    run: Run


CHECKS: dict[str, Check] = {}


def check(claim: str = "", **settings: Any) -> Callable[[Run], Run]:
    """Adds a check, whose name and reason are those of the function. `settings` are those of its server."""
    assert not claim or claim in CLAIMS

    def add(run: Run) -> Run:
        name = run.__name__
        CHECKS[name] = Check(name, " ".join((run.__doc__ or "").split()), claim, settings, run)
        return run

    return add


def broken(what: str) -> NoReturn:
    """Ends the check: the worker is wrong."""
    raise Broken(what)


def expect(found: object, wanted: object, what: str) -> None:
    """Raises Broken unless both are equal."""
    if found != wanted:
        broken(f"{what}: {found!r}, not {wanted!r}")
