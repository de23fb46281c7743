"""The commands that run the service and help to try it."""

import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphql_api import DEFAULT_PORT
from graphql_api.cli.options import EmbeddedOption
from graphql_api.cli.process import (
    BULK_TIMEOUT_SECONDS,
    CommandError,
    UsageError,
    database,
    described,
    load_settings,
    run,
)

if TYPE_CHECKING:
    from graphql_api.settings import Settings


commands = typer.Typer()


@commands.command(
    epilog="Settings are environment variables, such as DATABASE_URL, AUTH_JWKS_URL, GATEWAYS and METRICS_PORT: "
    "`gateway-tokens help configuration` explains all of them. `gateway-tokens doctor` checks them."
)
def serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 picks a free one.", metavar="PORT", min=0, max=65535)
    ] = DEFAULT_PORT,
    workers: Annotated[int, typer.Option(help="The number of worker processes.", metavar="N", min=1)] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="Fill an empty database with demo tokens first.")] = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Migrate the database and start the service. If DATABASE_URL is not set, it starts the embedded PostgreSQL.

    It refuses to start the embedded PostgreSQL if all of these are true: a variable looks like a misspelled
    DATABASE_URL, access tokens are required, and --host is not loopback. To start it anyway, pass --embedded or set
    DATA_DIR.
    """
    from graphql_api import server
    from graphql_api.app import create_app
    from graphql_api.cli import startup
    from graphql_api.domain.errors import InputError
    from graphql_api.observability.shared_memory import SharedMemory
    from graphql_api.settings.advice import is_misspelled
    from graphql_api.storage.migrate import upgrade

    settings = load_settings()
    name = described(settings)
    is_public = settings.authenticates and not server.is_loopback(host)
    is_slip = is_public and is_misspelled("DATABASE_URL", os.environ)
    with (
        startup.listening(settings, host, port, workers) as listeners,
        database(settings, embedded=embedded or not is_slip, tell=False) as settings,
        SharedMemory.open(workers) if workers > 1 else nullcontext() as shared,
    ):
        run(upgrade(str(settings.database_url)), for_owner=True)
        if demo:
            with suppress(InputError):  # other tokens are there
                run(_fill_with_demo_tokens(settings, users=100))
        app = create_app(settings, shared)
        server.keep_signals()
        startup.warn_of_settings(settings)
        run(startup.warn_of_missing_grants(str(settings.database_url)))
        startup.announce(settings, *listeners[0][0].getsockname()[:2], workers=workers, database=name)
        server.serve(app, listeners, settings.drain_seconds)


@commands.command()
def schema(
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare with ./schema.graphql; print a diff and exit with status 1 if they differ."
        ),
    ] = False,
) -> None:
    """Print the subgraph's SDL."""
    from difflib import unified_diff

    from graphql_api.schema import build_schema

    sdl = build_schema().as_str()
    if not check:
        print(sdl)
        return
    try:
        published = Path("schema.graphql").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            "schema.graphql does not exist here; create it with `gateway-tokens schema > schema.graphql`"
        ) from None
    diff = unified_diff(published.splitlines(), sdl.splitlines(), "schema.graphql", "the code", lineterm="")
    if lines := list(diff):
        print("\n".join(lines))
        raise CommandError(
            "schema.graphql differs from the code; update it with `gateway-tokens schema > schema.graphql`"
        )


@commands.command()
def demo(
    *,
    users: Annotated[
        int, typer.Option(help="The number of users who get tokens.", metavar="N", min=1, max=1_000_000)
    ] = 100,
    embedded: EmbeddedOption = False,
) -> None:
    """Save demo tokens for user-1, user-2, …. Every run saves the same ones."""
    from graphql_api.storage.migrate import upgrade

    with database(load_settings(), embedded=embedded) as settings:
        run(upgrade(str(settings.database_url)), for_owner=True)
        is_new = run(_fill_with_demo_tokens(settings, users=users))
    print(f"Stored demo tokens for {users:,} users." if is_new else "The demo tokens exist already.")


async def _fill_with_demo_tokens(settings: "Settings", users: int) -> bool:
    """Whether demo tokens were stored; False if they exist already."""
    from graphql_api.bulk.progress import progress
    from graphql_api.demo import fill
    from graphql_api.storage.pool import ConnectionPool
    from graphql_api.storage.tokens import TokenStore

    prepares = settings.database_prepared_statements
    async with ConnectionPool.open(
        str(settings.database_url), timeout=BULK_TIMEOUT_SECONDS, prepares=prepares
    ) as opened:
        with progress("demo", users) as show:
            return await fill(TokenStore(opened), users, lambda done: show(done, f"{done:,} users"))


@commands.command()
def token(
    *,
    sub: Annotated[
        str, typer.Option(help="The subject of the token: a user id, or the name of a service.", metavar="SUBJECT")
    ],
    scope: Annotated[
        str,
        typer.Option(
            help="Space-separated scopes, such as gateway-tokens:read. Without scopes, the token is a user's.",
            metavar="SCOPES",
        ),
    ] = "",
    expires_in: Annotated[int, typer.Option(help="Seconds until the token expires.", metavar="SECONDS", min=1)] = 3600,
) -> None:
    """Print a development access token, signed with AUTH_SECRET."""
    from graphql_api.auth.access_tokens import MAX_SUBJECT_LENGTH
    from graphql_api.cli.startup import minted
    from graphql_api.domain.caller import SCOPES

    if not 1 <= len(sub) <= MAX_SUBJECT_LENGTH:
        raise typer.BadParameter(f"--sub must have 1 to {MAX_SUBJECT_LENGTH} characters.")

    settings = load_settings()
    for unknown in sorted({*scope.split()} - SCOPES):
        *first, last = sorted(SCOPES)
        print(
            f"gateway-tokens: warning: this service has no scope {unknown}. "
            f"Its scopes are {', '.join(first)} and {last}.",
            file=sys.stderr,
        )
    if settings.auth_secret is None:
        raise UsageError("AUTH_SECRET is not set; for development, run `export AUTH_SECRET=$(openssl rand -hex 32)`")
    print(minted(settings, settings.auth_secret, sub, scope, expires_in))
