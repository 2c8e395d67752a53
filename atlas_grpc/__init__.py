"""Atlas: a job service over gRPC. Submit slow work, watch it live, get its result, never lose it.

The names below are imported when they are first used: a program that only submits loads no server, and a process that
only runs a handler loads no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors, pb
    from .client import Client, Job, JobState, SyncClient, new_job
    from .errors import AtlasError, FailNow, GiveBack, JobCancelled, JobFailed, RetryIn
    from .worker import Depends, JobContext, Registry, handler, lifespan, middleware

__version__ = "0.3.0"

__all__ = [
    "AtlasError",
    "Client",
    "Depends",
    "FailNow",
    "GiveBack",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobFailed",
    "JobState",
    "Registry",
    "RetryIn",
    "SyncClient",
    "__version__",
    "errors",
    "handler",
    "lifespan",
    "middleware",
    "new_job",
    "pb",
]

_MODULES = ("errors", "pb")
_HOMES = {
    "client": ("Client", "Job", "JobState", "SyncClient", "new_job"),
    "errors": ("AtlasError", "FailNow", "GiveBack", "JobCancelled", "JobFailed", "RetryIn"),
    "worker": ("Depends", "JobContext", "Registry", "handler", "lifespan", "middleware"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
