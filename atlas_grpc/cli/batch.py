"""Many jobs in a few calls: `atlas submit --from` and `--count`."""

from __future__ import annotations

import asyncio
import signal
import uuid
from itertools import islice
from typing import IO, TYPE_CHECKING

import click
from google.protobuf import json_format

from .. import pb
from ..client import new_job
from ..errors import AtlasError, InvalidArgument, Unavailable
from ..status import to_status
from . import exits
from .output import show_all, show_jsonl, show_table
from .render import state_of
from .values import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client import Client
    from .request import Order

CHUNK = 1000
"""Jobs that are read before they are submitted: bounds memory, and what Ctrl-C leaves undone."""
MAX_LINE = 16 * 1024 * 1024


async def submit_lines(client: Client, source: IO[bytes], order: Order, output: str) -> int:
    """Submits a job for each line. Answers 0, or the exit code of the first one that was refused."""
    return await _submit(client, _requests(source, _template(order)), output)


async def submit_copies(client: Client, order: Order, count: int, output: str) -> int:
    """Submits the same job so many times; each copy has a request id of its own."""
    template = _template(order)
    return await _submit(client, ((number, _own(template)) for number in range(1, count + 1)), output)


def _template(order: Order) -> pb.SubmitJobRequest:
    request = new_job(order.type, order.body, **order.options)
    request.ClearField("request_id")
    return request


def _own(template: pb.SubmitJobRequest, fields: pb.SubmitJobRequest | None = None) -> pb.SubmitJobRequest:
    """The template with those fields on top, and with a request id."""
    request = pb.SubmitJobRequest()
    request.CopyFrom(template)
    if fields is not None:
        if fields.WhichOneof("input"):
            request.ClearField("input")
        request.MergeFrom(fields)
    request.request_id = request.request_id or str(uuid.uuid4())
    return request


def _requests(
    source: IO[bytes], template: pb.SubmitJobRequest
) -> Iterator[tuple[int, pb.SubmitJobRequest | AtlasError]]:
    number = 0
    while line := source.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise click.UsageError(f"line {number} is longer than {MAX_LINE} bytes")
        if line.strip():
            yield number, _request(line, template)


def _request(line: bytes, template: pb.SubmitJobRequest) -> pb.SubmitJobRequest | AtlasError:
    try:
        fields = json_format.ParseDict(parse_object(line.decode(), "the line"), pb.SubmitJobRequest())
    except UnicodeDecodeError:
        return InvalidArgument("the line is not UTF-8 text")
    except click.UsageError as error:
        return InvalidArgument(error.message)
    except json_format.ParseError as error:
        return InvalidArgument(f"the line is no SubmitJobRequest: {error}")
    return _own(template, fields)


async def _submit(client: Client, requests: Iterator[tuple[int, pb.SubmitJobRequest | AtlasError]], output: str) -> int:
    report = _Report(output)
    try:
        while chunk := _next_chunk(requests):
            good = [request for _, request in chunk if not isinstance(request, AtlasError)]
            answers = iter(await client.submit_many(good))
            for number, request in chunk:
                answer = request if isinstance(request, AtlasError) else next(answers)
                if isinstance(answer, Unavailable):
                    exits.complain(f"stopped at line {number}: from here on nothing is known to be submitted")
                    raise answer
                report.add(number, answer if isinstance(answer, AtlasError) else answer.message)
    finally:
        report.close()
    return report.code


def _next_chunk(
    requests: Iterator[tuple[int, pb.SubmitJobRequest | AtlasError]],
) -> list[tuple[int, pb.SubmitJobRequest | AtlasError]]:
    """Reads on, for as long as somebody types: Ctrl-C ends it at once, while asyncio would only take note of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # by a Ctrl-C that came a moment earlier
            raise asyncio.CancelledError
        return list(islice(requests, CHUNK))
    finally:
        signal.signal(signal.SIGINT, before)


class _Report:
    """What became of each line, in the chosen format."""

    def __init__(self, output: str) -> None:
        self.code = exits.OK
        self._output = output
        self._rows: list[tuple[str, ...]] = []
        self._outcomes: list[pb.SubmitJobsResponse.Outcome] = []

    def add(self, number: int, answer: pb.Job | AtlasError) -> None:
        if isinstance(answer, AtlasError):
            self.code = self.code or exits.grpc_exit(answer.code)
            exits.complain(f"line {number}: {answer.reason}: {exits.clean(answer.message)}")
        if self._output == "id":
            if not isinstance(answer, AtlasError):
                click.echo(answer.id)
        elif self._output == "table":
            self._rows.append((str(number), *_cells(answer)))
        elif self._output == "jsonl":
            show_jsonl(_outcome(answer))
        else:
            self._outcomes.append(_outcome(answer))

    def close(self) -> None:
        if self._output == "table":
            show_table(("LINE", "ID", "TYPE", "STATE"), self._rows)
        elif self._output == "json":
            show_all(self._outcomes, "json")


def _cells(answer: pb.Job | AtlasError) -> tuple[str, ...]:
    if isinstance(answer, AtlasError):
        return "-", "-", f"refused: {answer.reason}"
    return answer.id, exits.clean(answer.type), state_of(answer)


def _outcome(answer: pb.Job | AtlasError) -> pb.SubmitJobsResponse.Outcome:
    if isinstance(answer, AtlasError):
        return pb.SubmitJobsResponse.Outcome(error=to_status(answer))
    return pb.SubmitJobsResponse.Outcome(response=pb.SubmitJobResponse(job=answer))
