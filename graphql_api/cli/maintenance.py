"""The commands that look after the database: migrate, check, prune, partition and distribute it."""

import os
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from graphql_api.cli.options import EmbeddedOption, YesOption
from graphql_api.cli.process import UsageError, database, described, load_settings, must_be_asked, run, run_bulk

if TYPE_CHECKING:
    from datetime import timedelta

    from graphql_api.storage.partitioning import Partitioning, PartitioningEstimate
    from graphql_api.storage.pool import ConnectionPool


commands = typer.Typer()


@commands.command()
def migrate(
    *,
    embedded: EmbeddedOption = False,
) -> None:
    """Migrate the database to the newest migration. Safe to run on several machines concurrently."""
    from graphql_api.storage.distribution import renew_functions
    from graphql_api.storage.migrate import newest_revision, upgrade

    async def migrated(url: str) -> str:
        revision = await upgrade(url)
        await renew_functions(url)
        return revision

    with database(load_settings(), embedded=embedded) as settings:
        revision = run(migrated(str(settings.database_url)), for_owner=True)
    newest = newest_revision()
    newer = f", which is newer than this release's {newest}: nothing to do" if revision > newest else ""
    print(f"The database is at migration {revision}{newer}.")


@commands.command()
def doctor() -> None:
    """Check settings, database and dependencies; change nothing.

    Lines that start with WRONG say how to fix the problem.
    """
    from graphql_api.doctor import findings
    from graphql_api.observability import logs
    from graphql_api.settings import Settings
    from graphql_api.settings.advice import misspellings

    logs.configure("error")  # a finding tells what a warning would

    async def told() -> bool:
        settings, problems = Settings.inspect()
        all_well = True
        async with aclosing(findings(settings, [*problems, *misspellings(os.environ)])) as found:
            async for finding in found:
                label = "WRONG" if not finding.is_well else "note" if finding.is_note else "ok"
                print(f"{label:<6}{finding.check:<12}{finding.says}", flush=True)
                all_well = all_well and finding.is_well
        return all_well

    if not run(told()):
        raise typer.Exit(1)


@commands.command()
def prune(
    *,
    history_older_than: Annotated[
        str, typer.Option(help="Delete history entries that are older than this, such as 365d.", metavar="DURATION")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the entries that would be deleted, and delete nothing.")
    ] = False,
    yes: YesOption = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Delete old history entries, after asking for confirmation.

    The last entry of each token is kept, as are entries that an endpoint of `deliver` has not accepted yet. Run it
    with a database role that may delete history; the service's own role should not.
    """
    from graphql_api.gateway_apis.jobs import duration

    age = duration(history_older_than, "--history-older-than")
    settings = load_settings()
    is_asked = not (yes or dry_run)
    if is_asked:
        must_be_asked("prune permanently deletes history. Pass --yes to confirm, or --dry-run to count the entries.")

    async def question(pool: "ConnectionPool") -> str | None:
        total = await _pruned(pool, age, dry_run=True)
        entries = f"{total:,} history entries older than {history_older_than}"
        return f"Delete {entries} from the database {described(settings)}?" if total else None

    async def work(pool: "ConnectionPool", _: object) -> None:
        total = await _pruned(pool, age, dry_run=dry_run)
        print(f"{total:,} history entries would be deleted." if dry_run else f"Deleted {total:,} history entries.")

    run_bulk(work, embedded=embedded, asks=question if is_asked else None, given=settings, for_owner=True)


async def _pruned(pool: "ConnectionPool", older_than: "timedelta", *, dry_run: bool) -> int:
    """Delete history entries that are older, or only count them. Returns how many they are.

    Raises:
        JobStoppedError: it was interrupted.
    """
    import asyncio

    from graphql_api.bulk.jobs import JobStoppedError
    from graphql_api.storage.retention import prune

    total = 0
    try:
        async for count in prune(pool, older_than, dry_run=dry_run):
            total += count
    except asyncio.CancelledError:
        deleted = f"after deleting at least {total:,} history entries: run the same command again to continue"
        raise JobStoppedError(f"prune stopped {'before it deleted anything' if dry_run else deleted}") from None
    return total


@commands.command()
def partition(
    *,
    parts: Annotated[
        int, typer.Option(help="The number of partitions of each table.", metavar="N", min=2, max=1024)
    ] = 16,
    table: Annotated[
        list[str] | None,
        typer.Option(help="Partition only this table. Repeat the option for more tables.", metavar="NAME"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate time and disk space, and change nothing.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Undo an interrupted run.")] = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Partition the large tables while the service runs.

    Converts the tables that grow with the number of tokens to hash partitions. Each table is copied in the
    background and then swapped in within moments. If a run is interrupted, the next one continues it. Requires the
    role that owns the tables, and disk space for a copy of the largest table.
    """
    from graphql_api.storage.partitioning import KEYS

    if unknown := sorted({*(table or ())} - {*KEYS}):
        raise typer.BadParameter(f"--table must be one of {', '.join(KEYS)}, not {unknown[0]}.")
    if dry_run and cancel:
        raise typer.BadParameter("--dry-run and --cancel cannot be used together.")
    with database(load_settings(), embedded=embedded) as settings:
        run(
            _partition_tables(str(settings.database_url), table or [*KEYS], parts, dry_run=dry_run, cancel=cancel),
            for_owner=True,
        )


async def _partition_tables(url: str, tables: Sequence[str], parts: int, *, dry_run: bool, cancel: bool) -> None:
    """Partition these tables one after the other, and say so; or say what it takes, or undo what was begun.

    Raises:
        BadInputError: a table has another number of partitions, or something would be lost. Nothing was begun.
        JobStoppedError: it was interrupted.
    """
    from graphql_api.domain.errors import BadInputError
    from graphql_api.storage.migrate import must_be_migrated
    from graphql_api.storage.partitioning import Partitioning, alone, parts_of, unfinished

    await must_be_migrated(url)
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
        begun = [each for each in await unfinished(connection) if each in tables]
        if cancel and not begun:
            print("There is no unfinished run to cancel.")
            return
        for work in waiting:
            if dry_run:
                made = await parts_of(connection, f"{work.table}_parted")
                print(f"{work.table}: {_left(made) if made else _expected(await work.estimate())}")
            elif cancel and work.table in begun:
                await work.cancel()
                print(f"{work.table} is not partitioned: its run was undone.")
            elif not cancel:
                await _partition_table(work, parts)


async def _partition_table(work: "Partitioning", parts: int) -> None:
    """Partition this table, and say so.

    Raises:
        JobStoppedError: it was interrupted.
    """
    import asyncio

    from graphql_api.bulk.jobs import JobStoppedError
    from graphql_api.bulk.progress import progress

    with progress(work.table, work.rows) as show:
        try:
            await work.run(show)
        except asyncio.CancelledError:
            raise JobStoppedError(f"{work.table}: {_left(parts)}") from None
    print(f"{work.table} has {parts} partitions now.")


def _left(made: int) -> str:
    return f"a run that made {made} partitions stopped: continue with --parts {made}, or undo it with --cancel."


def _expected(estimate: "PartitioningEstimate") -> str:
    return (
        f"{estimate.rows:,} rows; {_about(estimate.seconds / 60)} min at the present load, "
        f"and {_about(estimate.bytes / 1e9)} GB of disk until it is done."
    )


@commands.command()
def distribute(
    *,
    shards: Annotated[
        int,
        typer.Option(help="The number of shards of each table; fewer shards are faster.", metavar="N", min=1, max=1024),
    ] = 4,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be distributed, and change nothing.")
    ] = False,
) -> None:
    """Distribute large tables across a Citus cluster (experimental).

    Run it on the coordinator, as the role that owns the tables, while the service is stopped.
    The tables are copied in one transaction, and are locked meanwhile. After each upgrade, `migrate` updates the
    functions on the coordinator.
    """
    settings = load_settings()
    if settings.database_url is None:
        raise UsageError("DATABASE_URL is not set: set it to the coordinator of the cluster")
    with database(settings) as settings:
        run(_distribute_tables(str(settings.database_url), shards, dry_run=dry_run), for_owner=True)


async def _distribute_tables(url: str, shards: int, *, dry_run: bool) -> None:
    """Distribute the tables, and say so; or say what would be done.

    Raises:
        BadInputError: this is not the coordinator of a cluster with workers, or the tables have other shards.
    """
    from graphql_api.storage.distribution import KEYS, distribute, must_be_distributable, size_of
    from graphql_api.storage.migrate import must_be_migrated
    from graphql_api.storage.partitioning import alone

    await must_be_migrated(url)
    async with alone(url) as connection:
        cluster = await must_be_distributable(connection, shards)
        if dry_run:
            for table in KEYS:
                rows, size = await size_of(connection, table)
                state = f"{shards} shards already" if cluster.is_distributed else f"{shards} shards to be"
                print(f"{table}: {rows:,} rows here, {_about(size / 1e9)} GB; {state} on {cluster.workers} workers.")
            return
        await distribute(connection, shards)
        for table in KEYS:
            print(f"{table} has {shards} shards on {cluster.workers} workers.")


def _about(number: float) -> str:
    return f"about {number:.1f}" if number >= 0.1 else "less than 0.1"  # noqa: PLR2004 - what is printed
