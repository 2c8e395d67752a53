"""What the client verbs share: how to reach the server, how to print, how to run a coroutine to its exit code."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from . import exits
from .output import FORMATS
from .values import DURATION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..client import Client

    F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SERVER = "127.0.0.1:50051"


class Connection(NamedTuple):
    """Which server, on behalf of which namespace, and how long a unary call may take (seconds)."""

    server: str
    namespace: str
    timeout: float


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--server`, `--namespace` and `--timeout`; the command gets them as its first argument, a Connection."""

    @functools.wraps(function)
    def call(*, server: str, namespace: str, timeout: float, **more: Any) -> Any:
        if not server or "\0" in server:
            raise click.UsageError("--server (ATLAS_SERVER) must name a server")
        if not (namespace.isascii() and namespace.isprintable()):  # gRPC carries nothing else in its metadata
            raise click.UsageError("--namespace (ATLAS_NAMESPACE) must be printable ASCII")
        return function(Connection(server, namespace, timeout), **more)

    for option in (
        click.option("--timeout", type=DURATION, default="30s", show_default=True, help="How long a call may take."),
        click.option(
            "--namespace",
            default="default",
            envvar="ATLAS_NAMESPACE",
            show_envvar=True,
            show_default=True,
            help="The namespace of the jobs.",
        ),
        click.option(
            "--server",
            "-s",
            metavar="ADDRESS",
            default=DEFAULT_SERVER,
            envvar="ATLAS_SERVER",
            show_envvar=True,
            show_default=True,
            help="The server: host:port or unix:/path.",
        ),
    ):
        call = option(call)
    return call


def output_option(text: str) -> Callable[[F], F]:
    """Adds `--output`; `text` says what the formats hold."""
    return click.option("--output", "-o", type=click.Choice(FORMATS), default="table", show_default=True, help=text)


def quiet_grpc() -> None:
    """Before gRPC is imported: what its core would print is said by us, once."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def perform(connection: Connection, work: Callable[[Client], Awaitable[int]]) -> int:
    """Runs `work` with a client and answers its exit code, or that of the error it ended with."""
    quiet_grpc()
    from ..client import Client
    from ..errors import AtlasError
    from .loop import run

    async def session() -> int:
        async with Client(connection.server, namespace=connection.namespace, timeout=connection.timeout) as client:
            return await work(client)

    try:
        return run(session())
    except AtlasError as err:
        return exits.refused(err, connection.server)
