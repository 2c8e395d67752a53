"""The arguments and options of a job, shared by `submit` and `run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from .completion import complete_types
from .values import DURATION, INSTANT, PAIR, Payload, read_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import SubmitOptions

    F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--data", "data_file", type=click.Path(path_type=Path), help="Send the bytes of this file as payload."
    ),
    click.option("--content-type", default="", help="The media type of --data."),
    click.option("--queue", help="The queue to wait in.  [default: that of the type]"),
    click.option("--label", "-l", "labels", type=PAIR, multiple=True, help="A name and value of yours, to filter by."),
    click.option("--priority", type=int, help="Higher runs first, -100 to 100.  [default: 0]"),
    click.option("--delay", type=DURATION, help="Not before so much time from now."),
    click.option("--at", "start_time", type=INSTANT, help="Not before this instant, such as 2030-01-31T09:00."),
    click.option("--max-attempts", type=int, metavar="N", help="Attempts in all; 1 means no retry."),
    click.option("--backoff", "initial_backoff", type=DURATION, help="The pause before the second attempt."),
    click.option("--backoff-multiplier", type=float, metavar="X", help="By how much the pause grows each time."),
    click.option("--max-backoff", type=DURATION, help="The longest pause."),
    click.option("--jitter", type=float, metavar="SHARE", help="The random share of a pause, 0 to 1."),
    click.option(
        "--no-retry-on", "non_retryable_reasons", multiple=True, metavar="REASON", help="End at once on this reason."
    ),
    click.option("--attempt-timeout", type=DURATION, help="How long one attempt may run."),
    click.option("--total-timeout", type=DURATION, help="How long the job may take in all."),
    click.option("--start-timeout", type=DURATION, help="How long it may wait for its first attempt."),
    click.option("--retention", type=DURATION, help="How long the finished job is kept."),
    click.option("--request-id", help="Your key: repeating it answers the first job.  [default: a random one]"),
)


class Order(NamedTuple):
    """A job to submit: the arguments of the client's `submit`."""

    type: str
    body: dict[str, Any] | bytes
    options: SubmitOptions


def job_options(command: F) -> F:
    """Adds the options of a job; the command gets them as keyword arguments for `order_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def type_argument(*, required: bool) -> Callable[[F], F]:
    """Adds the arguments TYPE and PAYLOAD."""

    def add(command: F) -> F:
        command = click.argument("payload", nargs=-1)(command)
        return click.argument("type", required=required, shell_complete=complete_types)(command)

    return add


def order_of(given: dict[str, Any]) -> Order:
    """The job that the arguments ask for. Raises click.UsageError for what is no payload, and for a contradiction."""
    rest = dict(given)
    kind, words = rest.pop("type") or "", rest.pop("payload")
    file, content_type = rest.pop("data_file"), rest.pop("content_type")
    payload = read_payload(words, file, content_type, lambda: sys.stdin.buffer)
    if rest["delay"] is not None and rest["start_time"] is not None:
        raise click.UsageError("give either --delay or --at")
    chosen = {name: value for name, value in rest.items() if value is not None and value != ()}
    if "labels" in chosen:
        chosen["labels"] = dict(chosen["labels"])
        if len(chosen["labels"]) != len(rest["labels"]):
            raise click.UsageError("a label is given twice")
    return Order(kind, *_body(payload, chosen))


def _body(payload: Payload, chosen: dict[str, Any]) -> tuple[dict[str, Any] | bytes, SubmitOptions]:
    if payload.json is not None:
        return payload.json, cast("SubmitOptions", chosen)
    return payload.data, cast("SubmitOptions", chosen | {"content_type": payload.content_type})
