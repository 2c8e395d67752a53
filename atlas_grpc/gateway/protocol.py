"""uvicorn's HTTP protocol with what it lacks: limits on a request's size and time, and no ear for offers to upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import InvalidArgument, RequestTooLarge
from .failures import Failure

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers, and of what a body in chunks may have beside its content: trailers, for one."""
HEAD_TIMEOUT = 20.0
"""Seconds for a request's head to arrive, from its first byte or, for the first one, from the connection."""
REQUEST_TIMEOUT = 60.0
"""Seconds for all of a request to arrive, from the same moment."""


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose next request does not get on: they would hold memory or a place for ever.

    A request that offers to switch to another protocol is served in this one, as RFC 9110 allows. The parser believes
    that such a request ends with its head, and uvicorn leaves it at that: the body of every POST of a Java HttpClient,
    which offers `h2c` by default, would be lost. So the parser is given the request anew, without the offer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._complete = False
        self._loose = 0
        """Bytes since a piece of body came, or since the request began."""
        self._body_came = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._body_came = False
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")
            return
        if not self._complete:
            self._loose = 0 if self._body_came else self._loose + len(data)
            if self._loose > MAX_HEAD:
                error = RequestTooLarge(f"the headers or trailers of a request may have at most {MAX_HEAD} bytes")
                self._refuse(b"431 Request Header Fields Too Large", Failure.of(error, 431))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text says less
        self._refuse(b"400 Bad Request", Failure.of(InvalidArgument("this is not a valid HTTP/1.1 request")))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._complete, self._loose = True, False, 0
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after the body must not pass for what a proxy or the guard has looked at before it.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            return
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._complete = True
        self._stop_timer()
        super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
            else:
                return

    def _head_without_offer(self) -> bytes:
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join([line, *fields, b"", b""])

    def _refuse(self, status: bytes, failure: Failure) -> None:
        """Answers unless that would end up inside the answer to an earlier request, and closes."""
        if self.transport.is_closing():
            return
        latest: RequestResponseCycle | None = self.cycle
        answering = latest is not None and latest.response_started and not latest.response_complete
        if not answering and not self.pipeline:
            body = failure.body()
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self._head_is_due)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_due(self) -> None:
        if self._in_head:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(REQUEST_TIMEOUT - HEAD_TIMEOUT, self.transport.close)
