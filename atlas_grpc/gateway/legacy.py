"""The REST interface of Atlas 0.2, byte for byte in shape: `POST /jobs` and `GET /jobs/{id}`.

    POST /jobs {"type": "sleep", "seconds": 3}   → 200 {"id": …, "state": "PENDING"}
    GET /jobs/{id}                               → 200 {"id", "state", "payload": {"type": "sleep", "seconds": 3}}

and `"error"`, the message, when the job FAILED. What is wrong with a body is a 422 as FastAPI words it, an unknown id
a 404. `Idempotency-Key` is the request id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

from .._gen.atlas.v1.job_pb2 import Job
from .._gen.atlas.v1.job_service_pb2 import GetJobRequest, GetJobResponse, SubmitJobRequest, SubmitJobResponse
from ..errors import Code
from ..status import from_status
from . import metadata
from .failures import Failure, malformed, too_large, wrong_method
from .reading import encode, load_json
from .scalars import Malformed, text
from .wellknown import print_struct, read_struct

if TYPE_CHECKING:
    import grpc.aio

    from ..errors import AtlasError
    from .calls import Calls
    from .http import Request

_SERVICE = "/atlas.v1.JobService/"
_ONE = re.compile(rb"/jobs/([^/]+)")
_PATH = re.compile(r"([^.\[\]]+)|\[(?:\"([^\"]*)\"|([0-9]+))\]")
_BODY = {"type", "payload"}
"""The fields that come from the body; what else is wrong was said in a header."""
_HEADERS = {"request_id": "Idempotency-Key"}
"""The headers that are named otherwise than what they set."""


class LegacyJobs:
    """Serves the two routes over the same channel as everything else."""

    def __init__(self, channel: grpc.aio.Channel, calls: Calls, limit: int) -> None:
        self._calls = calls
        self._limit = limit
        self._submit: Any = channel.unary_unary(
            _SERVICE + "SubmitJob", request_serializer=None, response_deserializer=SubmitJobResponse.FromString
        )
        self._get: Any = channel.unary_unary(
            _SERVICE + "GetJob", request_serializer=None, response_deserializer=GetJobResponse.FromString
        )

    def serves(self, path: bytes) -> bool:
        return path == b"/jobs" or _ONE.fullmatch(path) is not None

    async def __call__(self, request: Request) -> None:
        """Serves a path that `serves` accepted; failures have the shape of 0.2 too."""
        try:
            one = _ONE.fullmatch(request.path)
            if one is not None:
                await self._read(request, one[1])
            else:
                await self._create(request)
        except Failure as failure:
            detail = {"detail": failure.status.message}
            await request.reply(failure.http, msgspec.json.encode(detail), headers=failure.headers)

    async def _create(self, request: Request) -> None:
        if request.method != "POST":
            raise wrong_method(["POST"])
        body = await request.body(self._limit)
        try:
            given = _object(body)
        except Malformed as err:
            await _refuse(request, [_json_problem(err)])
            return
        try:
            data = _submission(given, request.headers)
        except Malformed as err:
            await _refuse(request, [_problem(err.path, err.description, given)])
            return
        if len(data) > self._limit:
            raise too_large(self._limit)
        try:
            answer = await self._call(request, self._submit, data)
        except Failure as failure:
            if failure.status.code != Code.INVALID_ARGUMENT:
                raise
            await _refuse(request, _problems(from_status(failure.status), given))
            return
        # What it was at the submission, also when it is long done by now.
        await request.reply(200, msgspec.json.encode({"id": answer.job.id, "state": "PENDING"}))

    async def _read(self, request: Request, raw: bytes) -> None:
        if request.method not in ("GET", "HEAD"):
            raise wrong_method(["GET", "HEAD"])
        try:
            data = encode(GetJobRequest(id=unquote_to_bytes(raw).decode()))
            answer = await self._call(request, self._get, data)
        except UnicodeDecodeError:
            await _not_found(request)
        except Failure as failure:
            # An id that is not even well-formed is, to a client of 0.2, simply unknown.
            if failure.status.code == Code.NOT_FOUND or _fields(failure) == {"id"}:
                await _not_found(request)
            elif failure.status.code == Code.INVALID_ARGUMENT:
                await _refuse(request, _problems(from_status(failure.status), {}))
            else:
                raise
        else:
            await request.reply(200, msgspec.json.encode(_shown(answer.job)))

    async def _call(self, request: Request, method: Any, data: bytes) -> Any:
        try:
            sent = metadata.call_metadata(request.fields)
            timeout = metadata.timeout(request.headers)
        except Malformed as err:
            raise malformed(err) from None
        answer, _ = await self._calls.unary(request, method(data, metadata=sent, timeout=timeout))
        return answer


def _object(body: bytes) -> dict[str, Any]:
    value = load_json(body)
    if not isinstance(value, dict):
        raise Malformed("must be a JSON object", "body")
    return value


def _submission(given: dict[str, Any], headers: dict[bytes, bytes]) -> bytes:
    """The serialized SubmitJobRequest: all members besides `type` are the payload. Raises `Malformed`."""
    message = SubmitJobRequest()
    try:
        message.type = text(given.get("type", ""))
    except Malformed as err:
        raise err.within("type") from None
    try:
        read_struct(message.payload, {key: value for key, value in given.items() if key != "type"})
    except Malformed as err:
        raise err.within("payload") from None
    key = headers.get(b"idempotency-key")
    if key is not None:
        message.request_id = key.decode("latin-1")
    return encode(message)


def _shown(job: Job) -> dict[str, object]:
    payload = print_struct(job.payload) if job.WhichOneof("input") == "payload" else {}
    shown: dict[str, object] = {
        "id": job.id,
        "state": Job.State.Name(job.state),
        "payload": {"type": job.type, **{key: value for key, value in payload.items() if key != "type"}},
    }
    if job.state == Job.FAILED:
        shown["error"] = job.error.message
    return shown


def _fields(failure: Failure) -> set[str]:
    return {one.field for one in from_status(failure.status).violations}


def _problems(err: AtlasError, given: dict[str, Any]) -> list[dict[str, object]]:
    """The entries of `detail`, one for each field."""
    first = {one.field: one.description for one in reversed(err.violations)}
    return [_problem(field, first[field], given) for field in reversed(first)] or [_problem("", err.message, given)]


def _problem(path: str, description: str, given: dict[str, Any]) -> dict[str, object]:
    """One entry of `detail` for a field of SubmitJobRequest."""
    parts = [name or quoted or int(index) for name, quoted, index in _PATH.findall(path)]
    if parts and parts[0] not in _BODY:
        return {"loc": ["header", _HEADERS.get(path, path)], "msg": description, "type": "value_error"}
    names = parts[1:] if parts[:1] == ["payload"] else parts
    missing = len(names) == 1 and names[0] not in given
    return {"loc": ["body", *names], "msg": description, "type": "missing" if missing else "value_error"}


def _json_problem(err: Malformed) -> dict[str, object]:
    kind = "dict_type" if err.path else "json_invalid"
    return {"loc": ["body"], "msg": err.description, "type": kind}


async def _refuse(request: Request, problems: list[dict[str, object]]) -> None:
    await request.reply(422, msgspec.json.encode({"detail": problems}))


async def _not_found(request: Request) -> None:
    await request.reply(404, b'{"detail":"Job not found"}')
