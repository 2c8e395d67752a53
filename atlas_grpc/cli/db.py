"""`atlas db`: looks after the database of a PostgreSQL store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from ..errors import AtlasError
from . import exits
from .serve import load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

NOT_AS_IT_SHOULD_BE = 1


@click.group()
def db() -> None:
    """Look after the database of a PostgreSQL store.

    A server brings its schema up to date when it starts, unless its URL says migrate=false; then it is done here,
    by whoever may.

    \b
    Examples:
      atlas db migrate --dry-run --show-sql --store postgresql://localhost/atlas
      atlas db verify --store postgresql://localhost/atlas
    """


def _store(command: Callable[..., int]) -> Callable[..., int]:
    config = click.option("--config", "config_file", type=click.Path(path_type=Path), help="The TOML file.")
    store = click.option("--store", metavar="URL", help="The store.  [env: ATLAS_STORE; or the TOML file]")
    return store(config(command))


@db.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--show-sql", is_flag=True, help="Print the statements.")
@_store
def migrate(store: str | None, config_file: Path | None, *, dry_run: bool, show_sql: bool) -> int:
    """Bring the schema up to date.

    Safe to repeat, and from several places at a time. All steps that are missing run in one transaction.

    \b
    Examples:
      atlas db migrate --store postgresql://localhost/atlas
      atlas db migrate --dry-run --show-sql > migration.sql
    """

    async def run(postgres: Any, url: str) -> int:
        steps = await postgres.migrate(url, dry_run=dry_run)
        for step in steps:
            exits.say(f"{'would run' if dry_run else 'ran'} {step.version:04} {step.name}")
            if show_sql:
                click.echo(f"-- {step.version:04} {step.name}\n{step.sql}")
        if not steps:
            exits.say("the schema is up to date")
        return exits.OK

    return _with_store(store, config_file, run)


@db.command()
@_store
def verify(store: str | None, config_file: Path | None) -> int:
    """Compare the schema with what it should be.

    Prints what is missing or differs, and exits with 1 if anything does.

    \b
    Example:
      atlas db verify --store postgresql://localhost/atlas
    """

    async def run(postgres: Any, url: str) -> int:
        differences = await postgres.verify(url)
        for line in differences:
            click.echo(line)
        if not differences:
            exits.say("the schema is as it should be")
        return NOT_AS_IT_SHOULD_BE if differences else exits.OK

    return _with_store(store, config_file, run)


def _with_store(
    store: str | None, config_file: Path | None, run: Callable[[Any, str], Coroutine[Any, Any, int]]
) -> int:
    loaded = load(config_file, {"store": store})
    if loaded is None:
        return exits.USAGE
    from ..stores import WrongUrl, not_installed, schemes
    from . import loop

    url = loaded.settings.store
    scheme = urlsplit(url).scheme
    if scheme not in schemes.POSTGRES:
        known = schemes.shown((schemes.POSTGRES,))
        exits.complain(f"a {scheme} store has no schema to look after; name a {known} one by --store")
        return exits.USAGE
    try:
        from ..stores import postgres
    except ModuleNotFoundError as error:
        exits.complain(str(not_installed("postgres", error)))
        return exits.USAGE
    try:
        return loop.run(run(postgres, url))
    except (AtlasError, WrongUrl) as error:
        exits.complain(str(error))
        return NOT_AS_IT_SHOULD_BE
