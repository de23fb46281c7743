"""The commands: each reads its line, calls, and prints. What a command runs is imported only by it."""

import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from graphql_api import __version__, interrupts
from graphql_api.process import (
    CommandError,
    UsageError,
    database,
    described,
    fill_with_demo_tokens,
    load_settings,
    run,
    run_bulk,
)

cli = typer.Typer(
    help="Maps users to their customers at payment gateways: a federated GraphQL subgraph.",
    epilog="Settings are environment variables: docs/configuration.md lists them, and `doctor` checks them.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> NoReturn:
    """Run the command of this process's arguments; an expected error is one line on standard error."""
    try:
        status = cli(prog_name="gateway-tokens", standalone_mode=False)
        message = "interrupted" if status == interrupts.INTERRUPTED else None
    except Exception as error:  # noqa: BLE001 - what is not expected is raised again
        message, status = _told(error)
        if interrupts.happened():
            status = interrupts.INTERRUPTED
    if message is not None:
        print(f"gateway-tokens: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _told(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit status; a mistake of ours is raised again."""
    if isinstance(error, typer.TyperException):
        context: Any = getattr(error, "ctx", None)
        hint = f" ({context.command_path} --help)" if context else ""
        return error.format_message() + hint, error.exit_code

    from graphql_api.domain.errors import BadInputError, InputError, UnavailableError
    from graphql_api.settings import ConfigurationError

    match error:
        case ConfigurationError() | BadInputError():
            return str(error), 2
        case OSError():
            return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 1
        case InputError() | UnavailableError():
            return str(error), 1
        case _:
            raise error


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if asked:
        print(__version__)
        raise typer.Exit


@cli.callback()
def options(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback has read it
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options without a command."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@cli.command(
    epilog="Settings are environment variables, such as DATABASE_URL, AUTH_JWKS_URL, GATEWAYS and METRICS_PORT: "
    "docs/configuration.md lists all of them. `gateway-tokens doctor` checks them."
)
def serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 picks a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="The number of worker processes.", min=1)] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="Fill an empty database with demo tokens first.")] = False,
) -> None:
    """Migrate the database, then serve. Without DATABASE_URL, start the embedded PostgreSQL."""
    from graphql_api import server, startup
    from graphql_api.app import create_app
    from graphql_api.domain.errors import InputError
    from graphql_api.observability.shared_memory import SharedMemory
    from graphql_api.storage.migrate import upgrade

    settings = load_settings()
    name = described(settings)
    with (
        startup.listening(settings, host, port, workers) as listeners,
        database(settings, tell=False) as settings,
        SharedMemory.open(workers) if workers > 1 else nullcontext() as shared,
    ):
        run(upgrade(str(settings.database_url)))
        if demo:
            with suppress(InputError):  # other tokens are there
                run(fill_with_demo_tokens(settings, users=100))
        app = create_app(settings, shared)
        server.keep_signals()
        startup.warn_of_weak(settings)
        startup.announce(settings, *listeners[0][0].getsockname()[:2], workers=workers, database=name)
        server.serve(app, listeners, settings.drain_seconds)


@cli.command()
def migrate() -> None:
    """Migrate the database to the newest version. Safe to run on several machines at once."""
    from graphql_api.storage.migrate import upgrade

    with database(load_settings()) as settings:
        run(upgrade(str(settings.database_url)))


@cli.command()
def schema(
    *,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 with a diff if schema.graphql differs.")] = False,
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


@cli.command()
def demo(
    *, users: Annotated[int, typer.Option(help="The number of users who get tokens.", min=1, max=1_000_000)] = 100
) -> None:
    """Store demo tokens for user-1, user-2, …, the same every time."""
    from graphql_api.storage.migrate import upgrade

    with database(load_settings()) as settings:
        run(upgrade(str(settings.database_url)))
        is_new = run(fill_with_demo_tokens(settings, users=users))
    print(f"Stored demo tokens for {users:,} users." if is_new else "The demo tokens exist already.")


@cli.command()
def token(
    *,
    sub: Annotated[str, typer.Option(help="The subject of the token: a user id, or the name of a service.")],
    scope: Annotated[str, typer.Option(help="Space-separated scopes, such as gateway-tokens:read.")] = "",
    expires_in: Annotated[int, typer.Option(help="Seconds until the token expires.", min=1)] = 3600,
) -> None:
    """Print a development access token, signed with AUTH_SECRET."""
    from graphql_api.startup import minted

    settings = load_settings()
    if settings.auth_secret is None:
        raise UsageError("AUTH_SECRET is not set; for development, run `export AUTH_SECRET=$(openssl rand -hex 32)`")
    print(minted(settings, settings.auth_secret, sub, scope, expires_in))


@cli.command()
def doctor() -> None:
    """Check settings, database and dependencies. Lines that start with WRONG say how to fix the problem."""
    from graphql_api.doctor import findings
    from graphql_api.settings import Settings, slips

    async def told() -> bool:
        settings, problems = Settings.inspect()
        all_well = True
        async for finding in findings(settings, [*problems, *slips(os.environ)]):
            label = "WRONG" if not finding.is_well else "note" if finding.is_note else "ok"
            print(f"{label:<6}{finding.check:<12}{finding.says}", flush=True)
            all_well = all_well and finding.is_well
        return all_well

    if not run(told()):
        raise typer.Exit(1)


def _must_be_there(file: Path) -> Path:
    if file != Path("-") and not os.access(file, os.R_OK):
        raise typer.BadParameter(f"{file} does not exist or is not readable.")
    return file


FormatOption = Annotated[
    Literal["csv", "jsonl"] | None, typer.Option("--format", help="The format of FILE, if its extension does not tell.")
]
RejectsOption = Annotated[
    Path | None,
    typer.Option(
        "--rejects", help="Where to report rejected lines and reasons. Default: FILE.rejects.csv.", dir_okay=False
    ),
]
EmbeddedOption = Annotated[
    bool, typer.Option("--embedded", help="Without DATABASE_URL, work on the embedded PostgreSQL in .data.")
]
FileToRead = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A CSV or JSON Lines file, or - for standard input.",
        dir_okay=False,
        callback=_must_be_there,  # before a database is started for it
    ),
]
FileToWrite = Annotated[
    Path, typer.Argument(metavar="FILE", help="A CSV or JSON Lines file, or - for standard output.", dir_okay=False)
]


@cli.command(name="import")
def import_(
    file: FileToRead,
    *,
    format_: FormatOption = None,
    rejects: RejectsOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Save the tokens in a file. Invalid lines are reported; the rest is saved.

    The columns userId, gateway and gatewayCustomerId are required. If the user has no token at the gateway, the import
    creates it from all columns that `export` writes; omitted values get defaults. If they have one, the import changes
    only description, metadata and isActive. You can run an import again: tokens that are the same do not change.
    """
    from graphql_api.bulk.jobs import import_file

    run_bulk(
        file,
        format_,
        lambda opened, gateways: import_file(opened, gateways, file, format_, rejects),
        embedded=embedded,
    )


@cli.command()
def export(file: FileToWrite, *, format_: FormatOption = None, embedded: EmbeddedOption = False) -> None:
    """Write all tokens to a file. `import` creates the same tokens from it."""
    from graphql_api.bulk.jobs import export_file

    run_bulk(file, format_, lambda opened, _: export_file(opened, file, format_), embedded=embedded)


GatewayOption = Annotated[str, typer.Option(help="The gateway, such as STRIPE.")]


@cli.command()
def remap(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would change, and change nothing.")] = False,
    format_: FormatOption = None,
    rejects: RejectsOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Replace old customer ids by new ones after an account move. FILE has the columns old and new."""
    from graphql_api.bulk.jobs import remap_file

    run_bulk(
        file,
        format_,
        lambda opened, gateways: remap_file(opened, gateways, file, format_, rejects, gateway=gateway, dry_run=dry_run),
        embedded=embedded,
    )


@cli.command()
def reconcile(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    apply: Annotated[
        bool, typer.Option("--apply", help="Deactivate tokens that are missing there, verify the others.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(help="The column of the customer ids. Default: id or Customer ID.")
    ] = None,
    exported_at: Annotated[
        str | None, typer.Option(help="When the export began. Default: when FILE was written.", metavar="TIME")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Apply a list even if it looks incomplete.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where to report differences. Default: FILE.report.csv.", dir_okay=False)
    ] = None,
    format_: FormatOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Compare tokens with a gateway's list of customers. Differences in both directions go to a report."""
    from graphql_api.bulk.jobs import reconcile_file

    run_bulk(
        file,
        format_,
        lambda opened, gateways: reconcile_file(
            opened,
            gateways,
            file,
            format_,
            report,
            gateway=gateway,
            column=column,
            exported_at=exported_at,
            applies=apply,
            force=force,
        ),
        embedded=embedded,
    )
