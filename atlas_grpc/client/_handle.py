"""A job that knows its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._job import Explanation, Job

if TYPE_CHECKING:
    from .. import pb
    from ._client import Client
    from ._events import JobEvent, LogEvent
    from ._stream import Stream
    from ._values import Span


class JobHandle(Job):
    """A job as it was when it was read, with the methods of the client that concern it.

    It does not change: each method that reads the job answers a new handle.
    """

    __slots__ = ("_client",)

    def __init__(self, client: Client, message: pb.Job, answer: pb.SubmitJobResponse | None = None) -> None:
        super().__init__(message, answer)
        self._client = client

    async def refresh(self) -> JobHandle:
        """Reads it again, with payload and result. Raises JobNotFound."""
        return await self._client.get(self)

    async def wait(self, *, timeout: Span | None = None) -> JobHandle:
        """Waits until it is terminal, whatever its state then. Raises JobNotFound, DeadlineExceeded."""
        return await self._client.wait(self, timeout=timeout)

    async def result(self, *, timeout: Span | None = None) -> Any:
        """Waits for it and returns what its handler returned. Raises JobFailed, JobCancelled and what `wait` raises."""
        return await self._client.result(self, timeout=timeout)

    def watch(self, *, resume_token: str = "", include_logs: bool = True) -> Stream[JobEvent]:
        """Follows it to its end, from the beginning or from a resume token."""
        return self._client.watch(self, resume_token=resume_token, include_logs=include_logs)

    def logs(
        self, *, follow: bool = False, start_offset: int = 0, tail: int | None = None, attempt: int = 0
    ) -> Stream[LogEvent]:
        """The lines of its log that are kept; with `follow`, also those to come, to its end."""
        return self._client.logs(self, follow=follow, start_offset=start_offset, tail=tail, attempt=attempt)

    async def cancel(self, *, reason: str = "", if_version: int | None = None) -> JobHandle:
        """Stops it. Raises JobNotFound, JobTerminal, VersionMismatch."""
        return await self._client.cancel(self, reason=reason, if_version=if_version)

    async def retry(self, *, if_version: int | None = None) -> JobHandle:
        """Starts a new run of it, once it is terminal. Raises JobNotFound, JobNotTerminal, VersionMismatch."""
        return await self._client.retry(self, if_version=if_version)

    async def delete(self, *, if_version: int | None = None) -> None:
        """Deletes it, once it is terminal. Raises JobNotFound, JobNotTerminal, VersionMismatch."""
        await self._client.delete(self, if_version=if_version)

    async def explain(self) -> Explanation:
        """Says why it is where it is."""
        return await self._client.explain(self)
