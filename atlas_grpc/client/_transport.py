"""The channel: how it is made, how a call goes out, and how what goes wrong becomes an `AtlasError`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc import aio

from .. import __version__, errors, pb
from ..status import from_status
from ._patience import Tries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._gen.atlas.v1.job_service_pb2_grpc import JobServiceAsyncStub
    from ._patience import Patience

Req = TypeVar("Req")
Res = TypeVar("Res")

DETAILS = "grpc-status-details-bin"
"""The trailer that holds a serialized google.rpc.Status."""
NAMESPACE = "atlas-namespace"
MAX_RECEIVE = 64 * 1024 * 1024
"""Bytes of the largest answer; a result as protobuf JSON can be several times the size of its text."""
MAX_SEND = 4 * 1024 * 1024
MAX_TIMEOUT = 10 * 365 * 86_400.0
"""Seconds; gRPC takes a deadline that overflows its clock for one that has passed."""

_REPEATABLE = (
    "SubmitJob",
    "SubmitJobs",
    "GetJob",
    "ListJobs",
    "ListJobLogs",
    "CancelJob",
    "ExplainJob",
    "ListJobTypes",
)
"""Unary methods that do no harm when they are executed twice. Streams resume by themselves; RetryJob and DeleteJob
would answer the repeat with an error although the first call did its work."""

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "atlas.v1.JobService", "method": method} for method in _REPEATABLE],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.5},
}

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # The default of 256 KiB would silently exclude large batches from retries.
    ("grpc.per_rpc_retry_buffer_size", MAX_SEND),
    ("grpc.max_receive_message_length", MAX_RECEIVE),
    # The default grows to two minutes, long after a restarted server is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A connection that is open and dead is noticed before a call of the default timeout ends. Our server takes a ping
    # every 10 s.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without it a ping of keepalive, too, has a minute to be answered.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.primary_user_agent", f"atlas-python/{__version__}"),
)

_CUTS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class Transport:
    """The calls of one client: lazily connected, with its metadata and its deadline."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        metadata: Mapping[str, str | bytes],
        credentials: grpc.ChannelCredentials | None,
        channel: aio.Channel | None,
        wait_for_ready: bool | None,
        patience: Patience,
    ) -> None:
        self.timeout = min(timeout, MAX_TIMEOUT)
        self.patience = patience
        self.reached = False
        """Whether the server ever served us."""
        self._pauses: set[asyncio.Task[float]] = set()
        self._target = target
        self._metadata = tuple(metadata.items())
        self._credentials = credentials
        self._channel = channel
        self._owned = channel is None
        self._wait_for_ready = wait_for_ready
        self._stub: JobServiceAsyncStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def stub(self) -> JobServiceAsyncStub:
        """The generated stub. Raises RuntimeError after `close` or in another event loop than the first."""
        loop = asyncio.get_running_loop()
        if self._stub is None or self._closed:
            self._stub = self._connect(loop)
        elif self._loop is not loop:
            raise RuntimeError("a Client belongs to the event loop that used it first; SyncClient does not")
        return self._stub

    async def call(
        self,
        method: aio.UnaryUnaryMultiCallable[Req, Res],
        request: Req,
        *,
        more: float = 0.0,
        repeatable: bool = True,
    ) -> Res:
        """Makes a unary call, with `more` seconds on top of its deadline. Raises AtlasError.

        gRPC repeats it as the service config says; a client that waits for its server goes on until the deadline. What
        is not `repeatable` is repeated only when the server says that it refused the call.
        """
        # A long poll that is cut late has its whole timeout again; any other call ends in time, however often repeated.
        tries = Tries(self.patience, self.timeout, since=None if more else self.patience.clock.monotonic())
        left = self.timeout
        while True:
            try:
                return await self._once(method, request, left + more)
            except errors.Unavailable as err:
                if not self._waits or not (repeatable or isinstance(err, errors.ServerDraining)):
                    raise
                left = await self.pause(tries, err)
                if left <= 0:
                    raise

    async def pause(self, tries: Tries, error: errors.AtlasError) -> float:
        """`tries.pause`, ended by `close`. Raises Cancelled then."""
        if self._closed:
            raise errors.Cancelled("the client was closed") from error
        pausing = asyncio.ensure_future(tries.pause(error))
        self._pauses.add(pausing)
        try:
            return await pausing
        except asyncio.CancelledError:
            raise_if_closed()
            raise
        finally:
            self._pauses.discard(pausing)

    async def _once(self, method: aio.UnaryUnaryMultiCallable[Req, Res], request: Req, time_left: float) -> Res:
        try:
            answer = await method(request, timeout=time_left, metadata=self._metadata, wait_for_ready=self._waits)
        except aio.AioRpcError as err:
            self.reached |= is_answer(err)
            if err.code() is grpc.StatusCode.CANCELLED and rich_status(err) is None and not self._closed:
                # Nobody here did: so end the calls that a stopping server has received but not looked at.
                raise errors.Unavailable("the call was cut") from err
            raise from_rpc_error(err) from err
        except asyncio.CancelledError:
            raise_if_closed()
            raise
        self.reached = True
        return answer

    @property
    def _waits(self) -> bool:
        """Whether calls wait for a server that is away: a server that was there before is likely to come back."""
        return self.reached if self._wait_for_ready is None else self._wait_for_ready

    def stream(self, method: aio.UnaryStreamMultiCallable[Req, Res], request: Req) -> aio.UnaryStreamCall[Req, Res]:
        """Opens a stream, without a deadline: silence is what ends it."""
        return method(request, metadata=self._metadata)

    async def close(self) -> None:
        """Cancels what is under way and closes the channel, unless it was given from outside. May be repeated."""
        self._closed = True
        self._stub = None
        for pausing in self._pauses:
            pausing.cancel()
        if self._channel is not None and self._owned:
            await self._channel.close()

    def _connect(self, loop: asyncio.AbstractEventLoop) -> JobServiceAsyncStub:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None and self._credentials is not None:
            self._channel = aio.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)
        elif self._channel is None:
            self._channel = aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        self._loop = loop
        return pb.JobServiceStub(self._channel)


def from_rpc_error(err: aio.AioRpcError) -> errors.AtlasError:
    """The typed error of a failed call: from the rich status of the server, else from the code of the transport."""
    status = rich_status(err)
    if status is None:
        status = Status(code=err.code().value[0], message=err.details() or err.code().name)
    return from_status(status)


def rich_status(err: aio.AioRpcError) -> Status | None:
    """The google.rpc.Status in the trailers; None for an error that the transport made."""
    for key, value in err.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def is_cut(err: aio.AioRpcError) -> bool:
    """Whether a stream that ended so can be continued: the connection or the server went away, or it was too busy."""
    if rich_status(err) is None:
        return err.code() in _CUTS
    return isinstance(from_rpc_error(err), errors.Unavailable | errors.WatchTooSlow | errors.Overloaded)


def is_answer(err: aio.AioRpcError) -> bool:
    """Whether a server that serves said so itself."""
    return rich_status(err) is not None and err.code() is not grpc.StatusCode.UNAVAILABLE


def raise_if_closed() -> None:
    """To be called for a CancelledError: when it is not the caller's task that is being cancelled, the call was.

    Raises Cancelled then, so that a closed client does not look like a cancelled task.
    """
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise errors.Cancelled("the client was closed") from None
