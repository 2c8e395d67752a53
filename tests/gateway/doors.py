"""Two doors into one server, grpc-gateway and the mirror, and the same questions asked at both."""

from __future__ import annotations

import http.client
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PATIENCE = 30
"""Seconds for an answer."""
METADATA = re.compile(r"grpc-(metadata|trailer)-|trailer$")
_VARIABLE = re.compile(r"\$(\w+)")


class Ask(NamedTuple):
    """A request. `$name` in the path and the body stands for what an earlier answer had, `$door` for the door."""

    method: str
    path: str
    body: Any = None
    """Text and bytes are sent as they are, None sends no body, everything else as JSON."""
    headers: dict[str, str] | list[tuple[str, str]] = {}  # noqa: RUF012 - nothing changes it
    take: dict[str, str] = {}  # noqa: RUF012
    """Names for later requests, and where their values are in the answer: `job.id`, `jobs.0.token`."""
    lines: int = 0
    """Hang up after so many lines of the answer; 0 reads to its end."""


def ask(line: str, body: Any = None, headers: Any = None, **take: str) -> Ask:
    """`ask("POST /v1/jobs", {…}, id="id")`."""
    method, path = line.split(" ", 1)
    return Ask(method, path, body, headers or {}, take)


def begun(asked: Ask) -> Ask:
    """The same of a stream without end, of which the first line is read."""
    return asked._replace(lines=1)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    kind: str
    """The content type."""
    metadata: dict[str, list[str]]
    """The headers that carry metadata, and those trailers."""
    body: Any
    """The JSON values, one for each line; the text where it is no JSON."""
    headers: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def code(self) -> Any:
        """The gRPC code of an error."""
        return self.body[0].get("code") if isinstance(self.body, list) and self.body else None


class Door:
    """One way into the server; remembers what it was told to take from answers."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address
        self._taken = {"door": name}
        self._connection: http.client.HTTPConnection | None = None

    def forget(self) -> None:
        self._taken = {"door": self.name}

    def __call__(self, asked: Ask) -> Answer:
        answer = _parsed(self._fetch(asked))
        for name, where in asked.take.items():
            assert answer.status == 200, (self.name, asked, answer)
            value = answer.body[0]
            for part in where.split("."):
                value = value[int(part)] if part.isdigit() else value[part]
            self._taken[name] = str(value)
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fetch(self, asked: Ask) -> tuple[http.client.HTTPResponse, bytes]:
        body = asked.body
        if body is not None and not isinstance(body, bytes | str):
            body = json.dumps(body)
        if isinstance(body, str):
            body = self._filled(body).encode()
        headers = asked.headers.items() if isinstance(asked.headers, dict) else asked.headers
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        connection = self._connection
        try:
            # By hand, so that a header can be there twice and the path is sent as it stands.
            connection.putrequest(asked.method, self._filled(asked.path), skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, self._filled(value))
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            data = b"".join(response.readline() for _ in range(asked.lines)) or _read(response)
        except BaseException:
            self.close()
            raise
        if response.will_close or not response.isclosed():
            self.close()
        return response, data

    def _filled(self, text: str) -> str:
        return _VARIABLE.sub(lambda name: self._taken[name[1]], text)


def _read(response: http.client.HTTPResponse) -> bytes:
    """All of it; a stream may give signs of life for ever."""
    end = time.monotonic() + PATIENCE
    parts: list[bytes] = []
    while part := response.read1():
        parts.append(part)
        assert time.monotonic() < end, b"".join(parts)
    # The end of the answer, which sets the connection free.
    return b"".join([*parts, response.read()])


def _number(digits: str) -> float:
    """A JSON number is a double."""
    return int(digits) if len(digits) < 16 else float(digits)


def _parsed(fetched: tuple[http.client.HTTPResponse, bytes]) -> Answer:
    response, data = fetched
    metadata: dict[str, list[str]] = {}
    for name, value in response.getheaders():
        if METADATA.match(name.lower()):
            metadata.setdefault(name.lower(), []).append(value)
    text = data.decode("utf-8", "replace")
    try:
        body: Any = [json.loads(line, parse_int=_number) for line in text.split("\n") if line.strip()]
    except ValueError:
        body = text
    kind = response.headers.get("content-type", "")
    return Answer(response.status, kind, metadata, body, {name.lower(): value for name, value in response.getheaders()})
