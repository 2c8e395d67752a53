"""One line for each event, whoever logs it, and nothing in it that should not be."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager

import pytest
import structlog

from atlas_grpc.observe import logs

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
NOON = 1_935_662_400_000_001


def throw(error):
    raise error


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


@pytest.fixture(autouse=True)
def as_before():
    """Logging belongs to the process: gives it back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    logging.getLogger("uvicorn.access").setLevel(logging.NOTSET)
    structlog.reset_defaults()
    if logs._pipeline is not None:
        logs._pipeline.close()
        logs._pipeline = None
        for name, logger in logs._loggers.items():
            logger.point_to(logs._target(name))


@contextmanager
def logging_to(level="info", fmt="json"):
    """Yields a function that answers what was logged so far, parsed."""
    stream = io.StringIO()
    pipeline = logs.configure(level, fmt, stream, now=lambda: NOON)

    def lines():
        assert pipeline.flush()
        written = stream.getvalue().splitlines()
        return [json.loads(line) for line in written] if fmt == "json" else written

    yield lines


def test_one_json_object_a_line_in_a_fixed_order():
    log = logs.get_logger("atlas.test")
    with logging_to() as lines:
        log.info("listening", address="127.0.0.1:1", port=1)
    assert list(lines()[0].items()) == [
        ("time", "2031-05-04T12:00:00.000001Z"),
        ("level", "info"),
        ("logger", "atlas.test"),
        ("event", "listening"),
        ("address", "127.0.0.1:1"),
        ("port", 1),
    ]


def test_levels_below_are_left_out():
    log = logs.get_logger("atlas.test")
    with logging_to("warning") as lines:
        log.debug("no")
        log.info("no")
        log.warning("yes")
        log.error("yes")
        logging.getLogger("other").info("no")
    assert [line["level"] for line in lines()] == ["warning", "error"]


def test_a_second_configure_replaces_the_first_for_loggers_in_use():
    log = logs.get_logger("atlas.test")
    with logging_to("error") as first:
        log.info("no")
    with logging_to("debug") as second:
        log.debug("yes")
    assert (first(), [line["event"] for line in second()]) == ([], ["yes"])


@pytest.mark.parametrize("name", ["grpc", "grpc._cython.cygrpc", "uvicorn.error", "asyncio", "somebody"])
def test_standard_library_loggers_take_the_same_way(name):
    with logging_to() as lines:
        logging.getLogger(name).warning("%s of %d", "three", 4)
    assert [(line["logger"], line["event"]) for line in lines()] == [(name, "three of 4")]


def test_standard_library_records_with_wrong_arguments_or_exceptions():
    with logging_to() as lines:
        logging.getLogger("a").warning("%d", "not a number")
        try:
            throw(ValueError("broken"))
        except ValueError:
            logging.getLogger("b").exception("failed")
    first, second = lines()
    assert first["event"] == "%d"
    assert second["exception"]["message"] == "broken"


def test_structlog_of_a_handler_takes_the_same_way():
    with logging_to() as lines:
        structlog.get_logger("mine").info("hello", size=3)
        structlog.get_logger().debug("no")
    assert [(line["logger"], line["event"], line["size"]) for line in lines()] == [("mine", "hello", 3)]


def test_python_warnings_take_the_same_way():
    with logging_to() as lines, warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert lines()[0]["logger"] == "py.warnings"


async def test_job_and_trace_stand_on_the_lines_of_their_task_only():
    log = logs.get_logger("atlas.test")

    async def work(number):
        logs.bind_job(f"job-{number}", "default", f"00-{TRACE}-{SPAN}-01" if number else "nonsense")
        await asyncio.sleep(0)
        log.info("working", number=number)

    with logging_to() as lines:
        await asyncio.gather(work(0), work(1))
        log.info("outside")
    assert [
        (line.get("job_id"), line.get("namespace"), line.get("trace_id"), line.get("span_id")) for line in lines()
    ] == [
        ("job-0", "default", None, None),
        ("job-1", "default", TRACE, SPAN),
        (None, None, None, None),
    ]


def test_a_binding_ends_with_its_block():
    log = logs.get_logger("atlas.test")
    with logging_to() as lines:
        with logs.bind_job("outer", "a"), logs.bind_job("inner", "b"):
            log.info("1")
        log.info("2")
    assert [line.get("job_id") for line in lines()] == ["inner", None]


def test_payloads_and_objects_are_not_written():
    log = logs.get_logger("atlas.test")
    with logging_to() as lines:
        log.info("submitted", payload={"card": "4111"}, result="4111", body=b"4111", thing=bytearray(b"4111"))
    assert "4111" not in json.dumps(lines())


def test_a_field_cannot_take_the_place_of_another():
    log = logs.get_logger("atlas.test")
    with logging_to() as lines:
        log.info("event", time="never", level="fatal", exception="none")
    line = lines()[0]
    assert (line["level"], line["level_"], line["time_"], line["exception_"]) == ("info", "fatal", "never", "none")


def test_exceptions_are_fields():
    log = logs.get_logger("atlas.test")
    with logging_to() as lines:
        try:
            throw(Unprintable())
        except Unprintable as error:
            log.exception("failed")
            log.warning("failed", exc_info=error)
        log.warning("nothing failed", exc_info=True)  # noqa: LOG014 - a caller's slip must not break the line
    first, second, third = lines()
    assert first["exception"]["message"] == "<unprintable Unprintable>"
    assert (first["level"], second["level"]) == ("error", "warning")
    assert second["exception"] == first["exception"]
    assert "exception" not in third


def test_a_line_is_bounded():
    log = logs.get_logger("atlas.test")
    with logging_to() as lines:
        log.info("much", **{f"field{n}": "x" * 5000 for n in range(100)})
        log.error("failed", exc_info=ValueError("x" * 50_000_000))
    first, second = lines()
    assert first["truncated"] > 100_000
    assert len(second["exception"]["message"]) <= 1001


def test_text_is_one_line_that_nobody_can_forge():
    log = logs.get_logger("atlas.test")
    with logging_to(fmt="text") as lines:
        log.info("done\nforged", name='a "b"', plain="c", escape="\x1b[2J", number=3)
    fields = 'name="a \\"b\\"" plain=c escape="\\u001b[2J" number=3'
    assert lines() == [f"2031-05-04T12:00:00.000001Z info     atlas.test: done\\nforged {fields}"]


HOSTILE = "a\x9b31m\u202eb\u2028c\x85d\x7fe é"


def test_text_holds_nothing_that_steers_a_terminal():
    log = logs.get_logger("atlas.test")
    with logging_to(fmt="text") as lines:
        log.info(HOSTILE, **{"name\nforged": HOSTILE, "many": [HOSTILE]})
    (line,) = lines()
    assert line.isprintable()
    assert "a\\u009b31m\\u202eb\\u2028c\\u0085d\\u007fe é" in line
    assert " name\\nforged=" in line


def test_json_holds_nothing_that_steers_a_terminal_either():
    stream = io.StringIO()
    pipeline = logs.configure("info", "json", stream, now=lambda: NOON)
    logs.get_logger("atlas.test").info("event", text=HOSTILE)
    assert pipeline.flush()
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert json.loads(line)["text"] == HOSTILE


def test_a_caller_that_left_is_no_error():
    class ExecuteBatchError(Exception):
        """Named like grpc's."""

    for level, expected in (("info", []), ("debug", ["debug"])):
        with logging_to(level) as lines:
            try:
                raise ExecuteBatchError
            except ExecuteBatchError:
                logging.getLogger("grpc._cython.cygrpc").exception("ExecuteBatchError raised in core")
        assert [line["level"] for line in lines()] == expected


def test_auto_is_json_where_nobody_looks():
    assert logs.configure("info", "auto", io.StringIO()).format == "json"


@pytest.mark.parametrize(("level", "fmt"), [("loud", "json"), ("info", "xml")])
def test_refuses_what_it_does_not_know(level, fmt):
    with pytest.raises(ValueError, match="no such log level or format"):
        logs.configure(level, fmt)


def test_before_configure_events_are_ordinary_records(caplog):
    log = logs.get_logger("atlas.test")
    with caplog.at_level(logging.INFO, "atlas.test"):
        log.debug("no")
        log.info("100% done", size=3, payload="secret")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("atlas.test", "100% done size=3 payload=<withheld>")
    ]


def test_the_rest_is_written_at_exit_even_of_a_process_that_fails():
    program = """
from atlas_grpc.observe.logs import configure, get_logger
configure("info", "json")
for number in range(1000):
    get_logger("atlas.test").info("line", number=number)
raise SystemExit(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert done.returncode == 3
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(1000))


@pytest.mark.slow
def test_a_process_whose_stderr_is_stuck_still_ends():
    program = """
from atlas_grpc.observe.logs import configure, get_logger
configure("info", "json")
for number in range(20000):
    get_logger("atlas.test").info("line", text="x" * 200)
print("through", flush=True)
"""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writing, timeout=30, check=False
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, b"through\n")


def test_logs_do_not_import_grpc():
    program = "import sys, atlas_grpc.observe.logs; raise SystemExit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
