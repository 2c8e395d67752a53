"""How the program ends: exit codes, and the lines on stderr that say why."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import click

from ..config import format_duration
from ..errors import Code, Unavailable, Violation

if TYPE_CHECKING:
    from ..errors import AtlasError

OK = 0
JOB_FAILED = 1
NOT_READY = 1
USAGE = 2
JOB_CANCELLED = 3
WAITED_TOO_LONG = 4
NO_OUTPUT = 5
"""The output could not be written, for instance to a full disk."""
GRPC = 64
"""Plus the gRPC code."""
SIGNALLED = 128
"""Plus the number of the signal that ended the program."""
INTERRUPTED = 130
BROKEN_PIPE = 141

_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Cf holds the marks that reverse the direction of text, Cs what cannot be encoded."""


def clean(text: str) -> str:
    """Text from elsewhere, made safe for a terminal: control characters other than tab are shown escaped."""
    if text.isprintable():
        return text
    return "".join(_escaped(char) if unicodedata.category(char) in _CONTROL and char != "\t" else char for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def say(text: str) -> None:
    """A line for people, on stderr."""
    click.echo(text, err=True)


def complain(text: str) -> None:
    """A line on stderr that says what went wrong."""
    say(f"atlas: {text}")


def refused(err: AtlasError, server: str) -> int:
    """Says why a call failed, and answers the exit code for it."""
    if isinstance(err, Unavailable) and err.reason == Unavailable.reason:
        complain(f"cannot reach the server at {server}")
        say("  start one with `atlas serve`, or name another with --server or ATLAS_SERVER")
    else:
        complain(f"{err.reason}: {clean(err.message)}")
        for line in _violations(err.message, err.violations):
            say(line)
    if err.retry_after:
        say(f"  try again in {format_duration(err.retry_after)}")
    return grpc_exit(err.code)


def _violations(message: str, violations: tuple[Violation, ...]) -> list[str]:
    lines = [f"{violation.field}: {violation.description}" for violation in violations]
    return [] if lines == [message] else [f"  {clean(line)}" for line in lines]


def grpc_exit(code: int) -> int:
    """The exit code for a gRPC status code; one that gRPC does not know counts as UNKNOWN."""
    return GRPC + (code if 0 < code <= max(Code) else Code.UNKNOWN)
