"""Shell completion: the scripts, and the words that only a server knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import exits
from .common import DEFAULT_SERVER, quiet_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..client import Client

PATIENCE = 0.5
"""Seconds that a completion may wait for the server."""
MOST = 50
"""Jobs that are offered."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell.

    It completes verbs and options, and job types and ids by asking the server.

    \b
    Examples:
      eval "$(atlas completion bash)"        # in ~/.bashrc
      eval "$(atlas completion zsh)"         # in ~/.zshrc
      atlas completion fish > ~/.config/fish/completions/atlas.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    script = found(ctx.find_root().command, {}, "atlas", "_ATLAS_COMPLETE")
    click.echo(script.source_template % script.source_vars())
    return exits.OK


def complete_types(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The job types of the server that begin so; none if it does not answer at once."""

    async def ask(client: Client) -> list[str]:
        return [kind.name for kind in await client.types()]

    return _ask(ctx, ask, incomplete)


def complete_jobs(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the newest jobs that begin so."""

    async def ask(client: Client) -> list[str]:
        async with client.list(limit=MOST) as jobs:
            return [job.id async for job in jobs]

    return _ask(ctx, ask, incomplete)


def _ask(ctx: click.Context, ask: Callable[[Client], Awaitable[list[str]]], incomplete: str) -> list[str]:
    import asyncio
    import os

    quiet_grpc()
    from ..client import Client

    server = ctx.params.get("server") or os.environ.get("ATLAS_SERVER") or DEFAULT_SERVER
    namespace = ctx.params.get("namespace") or os.environ.get("ATLAS_NAMESPACE") or "default"

    async def limited() -> list[str]:
        async with Client(server, namespace=namespace, timeout=PATIENCE) as client, asyncio.timeout(PATIENCE):
            return await ask(client)

    try:
        return [word for word in asyncio.run(limited()) if word.startswith(incomplete)]
    except Exception:  # a shell that completes must not print
        return []
