"""Lines reach their stream in order; a stream that stands still costs lines, never time."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import threading
import time

import pytest

from atlas_grpc.observe.writer import LineWriter


def report(count: int) -> bytes:
    return b"dropped %d\n" % count


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    stream = os.fdopen(writing, "w")
    yield reading, stream
    for close in (stream.close, lambda: os.close(reading)):
        with contextlib.suppress(OSError):
            close()


def read_all(descriptor: int) -> list[bytes]:
    content = b""
    while chunk := os.read(descriptor, 1 << 16):
        content += chunk
    return content.splitlines()


def test_writes_in_order_and_flushes(pipe):
    reading, stream = pipe
    writer = LineWriter(stream)
    for number in range(100):
        writer.write(b"%d\n" % number)
    assert writer.flush()
    assert os.read(reading, 4096).split() == [b"%d" % number for number in range(100)]
    assert writer.close()


def test_takes_a_stream_without_descriptor():
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write("ä\n".encode())
    assert writer.close()
    assert stream.getvalue() == "ä\n"


def test_a_stuck_reader_costs_lines_but_no_time(pipe):
    reading, stream = pipe
    writer = LineWriter(stream, max_lines=1000, on_drop=report)
    line = b"x" * 99 + b"\n"
    start = time.perf_counter()
    for _ in range(5000):
        writer.write(line)
    assert time.perf_counter() - start < 1
    assert writer.dropped >= 5000 - 1000 - 2 * 656 - 41  # the buffer, two chunks in flight, the pipe
    assert not writer.flush(0.01)
    assert not writer.close(0.01)

    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(read_all(reading)))
    reader.start()
    assert writer.close(10)
    stream.close()
    reader.join()
    reports = [int(line.split()[1]) for line in lines if line.startswith(b"dropped")]
    assert sum(reports) == writer.dropped
    assert len(lines) - len(reports) + sum(reports) == 5000


def test_the_buffer_is_bounded_in_bytes(pipe):
    _, stream = pipe
    writer = LineWriter(stream, max_bytes=100_000)
    for _ in range(100):
        writer.write(b"x" * 10_000)
    assert writer.dropped >= 100 - 10 - 2 * 7
    writer.close(0)


def test_a_reader_that_left_ends_nothing(pipe):
    reading, stream = pipe
    os.close(reading)
    writer = LineWriter(stream)
    writer.write(b"one\n")
    assert writer.flush()
    writer.write(b"two\n")
    assert writer.flush()
    assert writer.dropped == 2
    assert writer.close()


def test_waits_for_a_descriptor_that_somebody_made_non_blocking(pipe):
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer = LineWriter(stream)
    for number in range(3000):
        writer.write(b"%04d\n" % number)
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(read_all(reading)))
    reader.start()
    assert writer.close(10)
    stream.close()
    reader.join()
    assert lines == [b"%04d" % number for number in range(3000)]


def test_a_closed_writer_takes_nothing():
    stream = io.StringIO()
    writer = LineWriter(stream)
    assert writer.close()
    writer.write(b"late\n")
    assert writer.dropped == 1
    assert stream.getvalue() == ""
