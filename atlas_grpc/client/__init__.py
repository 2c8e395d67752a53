"""Clients of an Atlas server: `Client` for asyncio, `SyncClient` for everything else.

They need nothing of the server. Whatever they do, generated stubs in any language can do too; what they add is request
ids, retries, deadlines, batches, typed errors and streams that resume.
"""

from ._client import Client
from ._events import (
    JobChanged,
    JobDeleted,
    JobEvent,
    JobsEvent,
    LogEvent,
    Logged,
    LogsDropped,
    Progressed,
    Restarted,
    Synced,
    Transitioned,
)
from ._handle import JobHandle
from ._job import Attempt, Error, Explanation, Job, JobState, JobType, PlannedAttempt, Progress
from ._patience import Patience
from ._portal import SyncStream
from ._requests import FilterOptions, SubmitOptions, new_job
from ._stream import Stream
from ._sync import SyncClient, SyncJobHandle
from ._transport import CHANNEL_OPTIONS

__all__ = [
    "CHANNEL_OPTIONS",
    "Attempt",
    "Client",
    "Error",
    "Explanation",
    "FilterOptions",
    "Job",
    "JobChanged",
    "JobDeleted",
    "JobEvent",
    "JobHandle",
    "JobState",
    "JobType",
    "JobsEvent",
    "LogEvent",
    "Logged",
    "LogsDropped",
    "Patience",
    "PlannedAttempt",
    "Progress",
    "Progressed",
    "Restarted",
    "Stream",
    "SubmitOptions",
    "SyncClient",
    "SyncJobHandle",
    "SyncStream",
    "Synced",
    "Transitioned",
    "new_job",
]
