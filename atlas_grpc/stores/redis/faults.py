"""What a Redis server may answer besides data, as errors of Atlas; and what keeps a server from being used at all."""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from ...errors import AtlasError, Internal, StoreFull, Unavailable
from ..base import UnsuitableDatabase

RETRY_AFTER = 0.2
"""Seconds: a connection that broke is made anew within about as much, once the server is there."""

_PASSING = frozenset(
    {"LOADING", "MASTERDOWN", "READONLY", "BUSY", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"}
    | {"UNBLOCKED", "NOSCRIPT"}
)
"""Codes of errors that another attempt, perhaps on another server, need not meet. Nothing was written then."""
_ELSEWHERE = frozenset({"READONLY", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN"})
"""Codes that say that the writable server is another one by now."""

_CODES: dict[type[RedisError], str] = {
    AskError: "ASK",
    AuthenticationError: "NOAUTH",
    BusyLoadingError: "LOADING",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    MovedError: "MOVED",
    NoPermissionError: "NOPERM",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}
"""The driver takes the code from the message of errors that have a class of their own."""


class UnfitServer(UnsuitableDatabase):
    """The server is there, but must not be used as it is set up. `setting` names what to change."""

    def __init__(self, setting: str, found: str, needed: str) -> None:
        super().__init__(f"Redis cannot keep jobs as it is set up: {setting} is {found}, but must be {needed}")
        self.setting = setting
        self.found = found
        self.needed = needed


def code_of(error: RedisError) -> str:
    """The word in front of an error reply."""
    return _CODES.get(type(error)) or str(error).partition(" ")[0]


def is_elsewhere(error: RedisError) -> bool:
    """Whether the connection leads to a server that does not take writes (any more)."""
    return code_of(error) in _ELSEWHERE


def is_unknown_script(error: object) -> bool:
    """Whether the server does not have a script (any more): it did nothing."""
    return isinstance(error, NoScriptError)


def refused(error: RedisError) -> AtlasError | UnfitServer:
    """The error of Atlas for an error reply."""
    if isinstance(error.__cause__, RedisError):
        # The driver wraps what a server answered while it connected by a Unix socket.
        error = error.__cause__
    code = code_of(error)
    if code == "OOM":
        return StoreFull("the store's server is out of memory")
    if code in _PASSING:
        return Unavailable(f"the store refuses for now: {code}", retry_after=RETRY_AFTER)
    if isinstance(error, AuthenticationError | NoPermissionError):
        return UnfitServer("access", code, "a user that may run all commands on the keys of the prefix")
    if isinstance(error, ResponseError):
        return Internal(f"the store's server cannot do what it was asked: {error}")
    return gone(error)


def gone(error: BaseException | str) -> Unavailable:
    """The error of Atlas for a connection that cannot be made, broke, or stood still."""
    return Unavailable(f"the store cannot be reached: {error}", retry_after=RETRY_AFTER)
