"""The commands: each reads its line, calls, and prints. What a command runs is imported only by it."""

import os
import sys
from contextlib import aclosing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from graphql_api import __version__, interrupts
from graphql_api.process import (
    CommandError,
    UsageError,
    database,
    described,
    fill_with_demo_tokens,
    load_settings,
    prune_history,
    run,
    run_bulk,
)

if TYPE_CHECKING:
    from graphql_api.bulk.jobs import FileOptions
    from graphql_api.gateway_apis.keys import GatewayKey
    from graphql_api.settings import Settings

cli = typer.Typer(
    help="Maps users to their customers at payment gateways: a federated GraphQL subgraph.",
    epilog="Settings are environment variables: docs/configuration.md in the repository lists them, and `doctor` "
    "checks them.",
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
        sys.stdout.flush()
    except BrokenPipeError:  # as Typer ends if the reader of the output, such as `head`, has gone before
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - what is not expected is raised again
        message, status = _told(error)
        if interrupts.happened():
            status = interrupts.INTERRUPTED
    if message is not None:
        from graphql_api.domain.cards import redact_card_numbers

        print(f"gateway-tokens: {redact_card_numbers(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(status)


def _told(error: Exception) -> tuple[str, int]:
    """The message for an error and the exit status; a bug is raised again."""
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
    "docs/configuration.md in the repository lists all of them. `gateway-tokens doctor` checks them."
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


EmbeddedOption = Annotated[
    bool, typer.Option("--embedded", help="Without DATABASE_URL, work on the embedded PostgreSQL in .data.")
]


@cli.command()
def migrate(
    *,
    embedded: EmbeddedOption = False,
) -> None:
    """Migrate the database to the newest version. Safe to run on several machines at once."""
    from graphql_api.storage.migrate import upgrade

    with database(load_settings(), embedded=embedded) as settings:
        revision = run(upgrade(str(settings.database_url)))
    print(f"The database is at revision {revision}.")


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
    *,
    users: Annotated[int, typer.Option(help="The number of users who get tokens.", min=1, max=1_000_000)] = 100,
    embedded: EmbeddedOption = False,
) -> None:
    """Store demo tokens for user-1, user-2, …, the same every time."""
    from graphql_api.storage.migrate import upgrade

    with database(load_settings(), embedded=embedded) as settings:
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
        async with aclosing(findings(settings, [*problems, *slips(os.environ)])) as found:
            async for finding in found:
                label = "WRONG" if not finding.is_well else "note" if finding.is_note else "ok"
                print(f"{label:<6}{finding.check:<12}{finding.says}", flush=True)
                all_well = all_well and finding.is_well
        return all_well

    if not run(told()):
        raise typer.Exit(1)


def _must_be_there(file: Path | None) -> Path | None:
    if file is not None and file != Path("-") and not os.access(file, os.R_OK):
        raise typer.BadParameter(f"{file} does not exist or is not readable.")
    return file


FormatOption = Annotated[
    Literal["csv", "jsonl"] | None,
    typer.Option("--format", help="The format of FILE, if neither its extension nor its content tells."),
]
RejectsOption = Annotated[
    Path | None,
    typer.Option(
        "--rejects", help="Where to write rejected lines and reasons. Default: FILE.rejects.csv.", dir_okay=False
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(help="The encoding of FILE, such as windows-1252. Default: UTF-8 or UTF-16.", metavar="NAME"),
]
DelimiterOption = Annotated[
    str | None, typer.Option(help="The delimiter of a CSV file. Default: the one of its header.", metavar="C")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="The name of a column, such as userId='Customer No'.", metavar="MEANING=NAME"),
]
CheckOption = Annotated[
    bool, typer.Option("--check", "--dry-run", help="Read everything, report what would change, and change nothing.")
]
FileToRead = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A CSV or JSON file, which may be compressed (.gz, .zst), or - for standard input.",
        dir_okay=False,
        callback=_must_be_there,  # before a database is started for it
    ),
]
FileToWrite = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A CSV or JSON Lines file, compressed if it ends in .gz or .zst, or - for standard output.",
        dir_okay=False,
    ),
]


def _file_options(
    file: Path,
    *,
    format_: Literal["csv", "jsonl"] | None,
    encoding: str | None,
    delimiter: str | None,
    columns: list[str] | None,
    rejects: Path | None,
    check: bool,
    only_column: str | None = None,
    skip_unknown_columns: bool = False,
    gateway: str | None = None,
) -> "FileOptions":
    """The options that all commands have that read a file; `only_column` is what a name alone means."""
    from graphql_api.bulk.files.opening import ReadOptions
    from graphql_api.bulk.jobs import FileOptions

    if delimiter is not None and (delimiter := delimiter.replace("\\t", "\t")) not in {",", ";", "\t", "|", ":", " "}:
        raise typer.BadParameter("--delimiter takes one of , ; \\t | : or a space.")
    meanings: dict[str, str] = {}
    for column in columns or ():
        meaning, is_named, name = column.partition("=")
        if not is_named and only_column is None:
            raise typer.BadParameter("--column takes MEANING=NAME, such as userId='Customer No'.")
        meanings[meaning if is_named else only_column or ""] = name if is_named else column
    read = ReadOptions(format_, encoding, delimiter, meanings, skip_unknown_columns, gateway)
    return FileOptions(file, read, rejects, check)


@cli.command(name="import")
def import_(
    file: FileToRead,
    *,
    gateway: Annotated[
        str | None, typer.Option(help="The gateway of lines that have none, such as STRIPE.", metavar="NAME")
    ] = None,
    check: CheckOption = False,
    rejects: RejectsOption = None,
    format_: FormatOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    column: ColumnOption = None,
    embedded: EmbeddedOption = False,
    skip_unknown_columns: Annotated[
        bool, typer.Option("--skip-unknown-columns", help="Skip columns that a token does not have.")
    ] = False,
) -> None:
    """Save the tokens in a file. Invalid lines are reported; the rest is saved.

    The columns userId, gateway and gatewayCustomerId are required. If the user has no token at the gateway, the import
    creates it from all columns that `export` writes; omitted values get defaults. If they have one, the import changes
    only description, metadata and isActive. You can run an import again: tokens that are the same do not change.
    """
    from graphql_api.bulk.jobs import import_file

    options = _file_options(
        file,
        format_=format_,
        encoding=encoding,
        delimiter=delimiter,
        columns=column,
        rejects=rejects,
        check=check,
        skip_unknown_columns=skip_unknown_columns,
        gateway=gateway,
    )
    run_bulk(lambda pool, gateways: import_file(pool, gateways, options), embedded=embedded)


@cli.command()
def export(
    file: FileToWrite,
    *,
    format_: FormatOption = None,
    embedded: EmbeddedOption = False,
    for_spreadsheets: Annotated[
        bool,
        typer.Option("--for-spreadsheets", help="Escape formulas with an apostrophe."),
    ] = False,
) -> None:
    """Write all tokens to a file. It overwrites a file of that name, once it has written everything.

    `import` creates the same tokens from it, unless it is for spreadsheets.
    """
    from graphql_api.bulk.files.opening import format_of
    from graphql_api.bulk.jobs import export_file

    format_of(file, format_)  # before a database is started for it
    run_bulk(lambda pool, _: export_file(pool, file, format_, for_spreadsheets=for_spreadsheets), embedded=embedded)


GatewayOption = Annotated[str, typer.Option(help="The gateway, such as STRIPE.")]


@cli.command()
def remap(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    check: CheckOption = False,
    rejects: RejectsOption = None,
    format_: FormatOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    column: ColumnOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Replace old customer ids with new ones after an account move. FILE has the columns old and new.

    Stripe's copy files and mapping files work as they are.
    """
    from graphql_api.bulk.jobs import remap_file

    options = _file_options(
        file,
        format_=format_,
        encoding=encoding,
        delimiter=delimiter,
        columns=column,
        rejects=rejects,
        check=check,
    )
    run_bulk(lambda pool, gateways: remap_file(pool, gateways, options, gateway=gateway), embedded=embedded)


@cli.command()
def reconcile(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    apply: Annotated[
        bool, typer.Option("--apply", help="Deactivate tokens that are missing there, verify the others.")
    ] = False,
    exported_at: Annotated[
        str | None,
        typer.Option(
            help="When the export began, such as 2026-11-30T08:00:00Z. Required with --apply.", metavar="TIME"
        ),
    ] = None,
    max_missing: Annotated[
        float,
        typer.Option(
            help="Apply nothing if more than PERCENT of the active tokens are missing.",
            metavar="PERCENT",
            min=0,
            max=100,
        ),
    ] = 10,
    allow_unreadable: Annotated[
        int, typer.Option(help="Apply nothing if more than N lines are unreadable.", metavar="N", min=0)
    ] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Where to report differences. Default: FILE.report.csv.", dir_okay=False)
    ] = None,
    check: CheckOption = False,
    rejects: RejectsOption = None,
    format_: FormatOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    column: ColumnOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Compare tokens with a gateway's list of customers. Differences in both directions go to a report.

    The report lists what is missing there, what is inactive here but listed there, and what is missing here. Without
    --apply, nothing changes.
    """
    from graphql_api.bulk.jobs import reconcile_file
    from graphql_api.bulk.reconciling import Guards

    if check and apply:
        raise typer.BadParameter("--check and --apply exclude each other.")
    options = _file_options(
        file,
        format_=format_,
        encoding=encoding,
        delimiter=delimiter,
        columns=column,
        rejects=rejects,
        check=check,
        only_column="id",
    )
    guards = Guards(max_missing, allow_unreadable) if apply else None
    run_bulk(
        lambda pool, gateways: reconcile_file(
            pool, gateways, options, gateway=gateway, exported_at=exported_at, report=report, guards=guards
        ),
        embedded=embedded,
    )


LimitOption = Annotated[int | None, typer.Option(help="Stop after N customers.", metavar="N", min=1)]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
ReportOption = Annotated[Path | None, typer.Option(help="Where to report customers as CSV.", dir_okay=False)]


@cli.command()
def check(
    *,
    gateway: GatewayOption,
    limit: LimitOption = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second. Default: what the gateway allows.", metavar="R", min=0.1, max=10_000),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Read the gateway's deletions since a time, or for a duration such as 30d. Default: since the last "
            "check.",
            metavar="TIME",
        ),
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(help="Only customers that were not verified for a duration, such as 12h or 7d.", metavar="D"),
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the gateway, and change nothing.")] = False,
    report: ReportOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Ask a gateway's API whether customers still exist.

    It reads the gateway's deletions first, then asks for the customers that were verified longest ago. It deactivates
    those that the gateway says are deleted, verifies those that it has, and reports those that it does not know.
    Several checks at once share the work, and a check continues where the last one stopped.
    """
    from datetime import UTC, datetime

    from graphql_api.gateway_apis import jobs
    from graphql_api.gateway_apis.checking import CheckOptions
    from graphql_api.gateway_apis.client import Pace

    settings, key, logs = _gateway_key(gateway)
    options = CheckOptions(
        limit,
        None if since is None else jobs.since(since, datetime.now(UTC)),
        jobs.duration(older_than, "--older-than"),
        dry_run,
    )
    pace = Pace(rate or key.api.rate)
    run_bulk(
        lambda pool, gateways: jobs.check_gateway(pool, gateways, key, options, pace=pace, report=report, logs=logs),
        embedded=embedded,
        given=settings,
    )


@cli.command()
def purge(
    *,
    gateway: GatewayOption,
    limit: LimitOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")] = False,
    missing_is_done: Annotated[
        bool,
        typer.Option("--missing-is-done", help="Count customers that the gateway does not know as deleted."),
    ] = False,
    skip_file: Annotated[
        Path | None,
        typer.Option(help="Customer ids that must be kept, one on each line.", dir_okay=False, callback=_must_be_there),
    ] = None,
    yes: YesOption = False,
    report: ReportOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Delete the customers of erased users at a gateway.

    Each customer that is deleted is confirmed. A customer that belongs to a user is never deleted. After a failure, the
    purge continues with the next customer.
    """
    from graphql_api.bulk.files.opening import expect_other_file
    from graphql_api.gateway_apis import jobs
    from graphql_api.gateway_apis.purging import PurgeOptions

    settings, key, logs = _gateway_key(gateway)
    if skip_file is not None and report is not None:
        expect_other_file("--report", report, skip_file)
    skipped = frozenset[str]() if skip_file is None else jobs.skipped_customers(skip_file)
    options = PurgeOptions(limit, dry_run, missing_is_done, skipped)
    if not (yes or dry_run):
        if not sys.stdin.isatty():
            raise UsageError("purge deletes customers for good: add --yes, or --dry-run to see which")
        typer.confirm(f"Delete the customers of erased users at {key.gateway}? This cannot be undone.", abort=True)
    run_bulk(
        lambda pool, gateways: jobs.purge_gateway(pool, gateways, key, options, report=report, logs=logs),
        embedded=embedded,
        given=settings,
    )


def _gateway_key(gateway: str) -> "tuple[Settings, GatewayKey, bool]":
    """The settings, how to ask this gateway, and whether programs read the log, which then has the summary."""
    from graphql_api.domain.errors import BadInputError, InputError
    from graphql_api.gateway_apis.keys import gateway_key
    from graphql_api.observability.logs import configure

    settings = load_settings()
    try:
        key = gateway_key(settings, settings.rules_of_gateways.parse(gateway))
    except InputError as refused:
        raise BadInputError(str(refused)) from None
    logs = settings.log_format == "json"
    if logs:
        configure(settings.log_level, settings.log_format)
    return settings, key, logs


@cli.command()
def deliver(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Deliver the current backlog, and exit 1 if an endpoint stays behind.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(help="Enable this endpoint, and exit. It continues after its last entry.", metavar="NAME"),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="With --resume: continue after this cursor.", metavar="CURSOR")
    ] = None,
    skip: Annotated[bool, typer.Option("--skip", help="With --resume: leave out the entry that failed.")] = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Send the change feed to EVENT_WEBHOOKS, signed.

    Signatures follow Standard Webhooks. You can run several processes. A new endpoint gets changes from now on. If an
    endpoint does not accept an entry, it is retried for 76 hours. Then the endpoint is disabled until --resume, and its
    entries wait.
    """
    from graphql_api.process import deliver_events, resume_endpoint

    if resume is None and (from_ is not None or skip):
        raise typer.BadParameter("--from and --skip need --resume NAME.")
    if resume is not None and (once or (from_ is not None and skip)):
        raise typer.BadParameter("--resume takes --from or --skip, and not --once.")
    settings = load_settings()
    if resume is not None:
        resume_endpoint(settings, resume, cursor=from_, skip=skip, embedded=embedded)
        print(f"{resume} is enabled.")
        return
    if not settings.event_webhooks:
        raise UsageError("EVENT_WEBHOOKS is not set; it takes endpoints such as billing=https://billing.example/events")
    behind = deliver_events(settings, once=once, embedded=embedded)
    for name, reason in behind.items():
        print(f"gateway-tokens: {name} stays behind: {reason}", file=sys.stderr)
    if behind:
        raise typer.Exit(1)


@cli.command()
def prune(
    *,
    history_older_than: Annotated[
        str, typer.Option(help="Delete history entries that are older than this, such as 365d.", metavar="D")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many entries would be deleted, and delete nothing.")
    ] = False,
    yes: YesOption = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Delete old history entries. On a terminal, it asks first.

    It keeps the last entry of each token, and entries that an endpoint of `deliver` has not accepted yet. The database
    role needs permission to delete history, which the service's role should not have.
    """
    from graphql_api.gateway_apis.jobs import duration

    age = duration(history_older_than, "--history-older-than")
    if sys.stdin.isatty() and not (yes or dry_run):
        question = f"Delete history entries older than {history_older_than}? This cannot be undone."
        typer.confirm(question, abort=True)
    run_bulk(lambda pool, _: prune_history(pool, age, dry_run=dry_run), embedded=embedded)


@cli.command()
def partition(
    *,
    parts: Annotated[
        int, typer.Option(help="The number of partitions of each table, such as 16.", min=2, max=1024)
    ] = 16,
    table: Annotated[
        list[str] | None, typer.Option(help="Only this table; repeat it for more.", metavar="NAME")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how long it takes and how much disk, and change nothing.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Undo a run that stopped before its end.")] = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Partition large tables while the service serves.

    The tables that grow with the tokens become hash partitions. It copies each table in the background, then swaps it
    in a moment. A run that stopped continues where it was. It needs the role that owns the tables, and disk for a copy
    of the largest one.
    """
    from graphql_api.process import partition_tables
    from graphql_api.storage.partitioning import KEYS

    if unknown := sorted({*(table or ())} - {*KEYS}):
        raise typer.BadParameter(f"--table takes one of {', '.join(KEYS)}, not {unknown[0]}.")
    if dry_run and cancel:
        raise typer.BadParameter("--dry-run and --cancel exclude each other.")
    with database(load_settings(), embedded=embedded) as settings:
        run(partition_tables(str(settings.database_url), table or [*KEYS], parts, dry_run=dry_run, cancel=cancel))
