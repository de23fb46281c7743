"""The bulk commands: a file on one side, the service on the other, and what is said about it in between."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from graphql_api.bulk.exporting import export
from graphql_api.bulk.files.opening import PIPE, ReadOptions, Source, expect_other_file, format_of, reading, writing
from graphql_api.bulk.files.record_files import read_customers, read_id_changes, read_tokens
from graphql_api.bulk.files.rejects import rejects, rejects_path
from graphql_api.bulk.importing import import_tokens
from graphql_api.bulk.progress import named, progress, say
from graphql_api.bulk.reconciling import (
    ApplyTally,
    Guards,
    apply,
    check,
    expect_tokens,
    listed_customers,
    payment_methods,
)
from graphql_api.bulk.records import Format, Line, Tally
from graphql_api.bulk.remapping import remap
from graphql_api.domain.cards import quoted
from graphql_api.domain.errors import BadInputError, InputError, UnavailableError
from graphql_api.domain.filter import TokenFilter
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.values import instant
from graphql_api.storage.connector import FAILURES
from graphql_api.storage.customer_lists import OTHER_OBJECTS, CustomerList, ListCounts, ListedCustomer
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore

T = TypeVar("T")

_LINES_BETWEEN_UPDATES = 10_000
_FINISH_SECONDS = 3.0  # for what is under way at an interruption


class _StepAbandonedError(asyncio.CancelledError):
    """A step was left before its end, so it is not known whether its change was made."""


_OUTCOME_UNKNOWN = (_StepAbandonedError, UnavailableError, *FAILURES)


class JobStoppedError(Exception):
    """A command was interrupted; the message says where."""


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What the bulk commands that read a file have in common.

    Args:
        path: the file, or `-` for standard input
        read: how it is to be read
        rejects: where to write lines that are not taken, if not beside the file
        checks: whether everything is read and nothing is changed
    """

    path: Path
    read: ReadOptions
    rejects: Path | None = None
    checks: bool = False

    def title(self, verb: str) -> str:
        """What the command is called in what it says."""
        return f"{'check of ' if self.checks else ''}{verb} {named(self.path)}"


# What became of lines, and how a check says what would become of them.
_OUTCOMES = {
    "created": "create {n:,}",
    "changed": "change {n:,}",
    "unchanged": "leave {n:,} unchanged",
    "rejected": "reject {n:,}",
}


@dataclass(slots=True)
class _Totals:
    """What became of the lines so far, or would become of them, if they are only checked."""

    checks: bool = False
    line: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    rejected: int = 0

    def add(self, tally: Tally) -> None:
        self.line = tally.line
        self.created += tally.created
        self.changed += tally.changed
        self.unchanged += tally.unchanged
        self.rejected += len(tally.rejected)

    def __str__(self) -> str:
        counts = ((name, would, getattr(self, name)) for name, would in _OUTCOMES.items())
        parts = [would.format(n=n) if self.checks else f"{n:,} {name}" for name, would, n in counts if n]
        return ("would " if self.checks else "") + ", ".join(parts) if parts else "nothing to do"


async def import_file(pool: ConnectionPool, gateways: Gateways, options: FileOptions) -> bool:
    """Save the tokens of a file. Returns whether all of them could be.

    Raises:
        BadInputError: the file cannot be read, or its columns are not those of a token.
        JobStoppedError: it was interrupted.
    """
    if (gateway := options.read.gateway) is not None:
        options = replace(options, read=replace(options.read, gateway=_gateway(gateways, gateway)))

    def save(records: Iterator[Line]) -> AsyncGenerator[Tally]:
        return import_tokens(TokenStore(pool), gateways, records, dry_run=options.checks)

    return await _run_job("import", options, read_tokens, save)


async def remap_file(pool: ConnectionPool, gateways: Gateways, options: FileOptions, *, gateway: str) -> bool:
    """Replace old identifiers by new ones. Returns whether all of them could be.

    Raises:
        BadInputError: the gateway is malformed or has no tokens, or the file cannot be read or has other columns.
        JobStoppedError: it was interrupted.
    """
    name = _gateway(gateways, gateway)
    await expect_tokens(TokenStore(pool), name)

    def replace_ids(records: Iterator[Line]) -> AsyncGenerator[Tally]:
        return remap(TokenStore(pool), gateways, name, records, dry_run=options.checks)

    return await _run_job("remap", options, read_id_changes, replace_ids)


def _gateway(gateways: Gateways, text: str) -> str:
    try:
        return gateways.parse(text)
    except InputError as refused:
        raise BadInputError(str(refused)) from None


async def _run_job(
    verb: str,
    options: FileOptions,
    read: Callable[[Source], Iterator[Line]],
    work: Callable[[Iterator[Line]], AsyncGenerator[Tally]],
) -> bool:
    title = options.title(verb)
    totals = _Totals(options.checks)
    with reading(options.path, options.read) as source:
        records = read(source)
        _say_what_was_recognized(title, source)
        rejected = _rejects_path(options, source)
        expect_other_file("--rejects", rejected, options.path)
        with rejects(rejected, source) as reject, progress(title, source.size) as show:
            try:
                async with aclosing(work(records)) as tallies:
                    async for tally in _finish_steps(tallies):
                        totals.add(tally)
                        reject(tally.rejected)
                        show(source.position, f"{totals.line:,} lines, {totals}")
            except asyncio.CancelledError as cancelled:
                raise JobStoppedError(_stop(title, totals, cancelled)) from None
            except BadInputError as wrong:  # the file itself is wrong: to run the command again would not help
                say(_stop(title, totals, wrong, advice=""))
                raise
            except Exception as error:
                say(_stop(title, totals, error))
                raise
    say(f"{title}: {totals}{_about_rejects(rejected, totals.rejected)}")
    return not totals.rejected


def _say_what_was_recognized(title: str, source: Source) -> None:
    if source.recognized:
        say(f"{title}: reads {', '.join(source.recognized)}")


def _rejects_path(options: FileOptions, source: Source) -> Path:
    return options.rejects or rejects_path(_beside(options.path), source)


def _about_rejects(path: Path, count: int) -> str:
    if count:
        return f"; reasons are in {named(path)}"
    return f"; {named(path)} is not of this run" if path.exists() else ""


def _beside(path: Path) -> Path:
    """What is named after the file stands beside it, or in the working directory if it is a pipe."""
    return path if path.is_file() and not path.is_relative_to("/dev") else Path("stdin")


async def _finish_steps(steps: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """These steps; an interruption lets the one under way end, and be told, before it takes effect.

    Raises:
        _StepAbandonedError: a second interruption ended the wait for that step, or it took too long.
    """
    while True:
        step = asyncio.ensure_future(anext(steps, None))
        try:
            done = await asyncio.shield(step)
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(_FINISH_SECONDS):
                    done = await step
            except (asyncio.CancelledError, TimeoutError):
                raise _StepAbandonedError from None
            if done is not None:
                yield done
            raise
        if done is None:
            return
        yield done


def _stop(title: str, totals: _Totals, cause: BaseException, advice: str | None = None) -> str:
    if advice is None:
        advice = f": run the same command again to {'start over' if totals.checks else 'continue'}"
    how_far = f"{title} stopped after line {totals.line:,} ({totals})" if totals.line else f"{title} stopped"
    if isinstance(cause, _OUTCOME_UNKNOWN) and not totals.checks:
        return f"{how_far}; {'later' if totals.line else 'its first'} lines may have taken effect{advice}"
    return f"{how_far}{advice}" if totals.line else f"{how_far}: nothing was changed"


async def export_file(
    pool: ConnectionPool, path: Path, format_: Format | None, *, for_spreadsheets: bool = False
) -> None:
    """Write all tokens to this file, which is whole or not there.

    Raises:
        BadInputError: the file cannot be written, has no known format, or is JSON for a spreadsheet.
        JobStoppedError: it was interrupted.
    """
    format_ = format_of(path, format_)
    if for_spreadsheets and format_ != "csv":
        raise BadInputError("--for-spreadsheets needs a CSV file.")
    title = f"export {named(path)}"
    total = await TokenStore(pool).count(TokenFilter())
    with writing(path) as file, progress(title, total) as show:
        lines = 0

        def write(chunk: bytes) -> None:
            nonlocal lines
            file.write(chunk)
            lines += chunk.count(b"\n")
            show(lines, f"{lines:,} lines")

        try:
            async with pool.transaction("set transaction read only", commits=False) as connection:
                rows = await export(connection.raw, format_, write, for_spreadsheets=for_spreadsheets)
        except asyncio.CancelledError:
            raise JobStoppedError(f"{title} was interrupted: nothing was written") from None
    say(
        f"{title}: {rows:,} tokens" + ("; formulas are escaped, so do not import this file" if for_spreadsheets else "")
    )


async def reconcile_file(
    pool: ConnectionPool,
    gateways: Gateways,
    options: FileOptions,
    *,
    gateway: str,
    exported_at: str | None,
    report: Path | None,
    guards: Guards | None,
) -> bool:
    """Compare the tokens of a gateway with its list of customers. Returns whether nothing differs.

    Args:
        pool: the database
        gateways: what is known of gateways
        options: the file, and how to read it
        gateway: the gateway whose customers the file lists
        exported_at: when the list was begun; if it is left out, nothing may be applied
        report: where to write what differs, if not beside the file
        guards: how much may differ for the differences to be applied; None compares only

    Raises:
        BadInputError: what was asked for cannot be understood, or the file cannot be read or has other columns.
        InputError: more differs than the guards allow, so nothing was changed.
        JobStoppedError: it was interrupted, or lost its database after it had changed something.
    """
    store = TokenStore(pool)
    name = _gateway(gateways, gateway)
    await expect_tokens(store, name)
    at = await _export_time(store, options.path, exported_at, applies=guards is not None)
    report = report or Path(f"{_beside(options.path)}.report.csv")
    expect_other_file("--report", report, options.path)
    title, total = f"reconcile {named(options.path)} with {name}", ApplyTally()
    try:
        async with store.transaction(()) as transaction:
            customer_list = CustomerList(transaction.raw, name, at)
            unreadable = await _load(customer_list, title, options, gateways, report)
            counts = await customer_list.counts()
            with writing(report) as file:
                await customer_list.report(file.write)
            say(f"{title}: {counts}; differences are in {named(report)}")
            others = () if name in gateways.id_patterns else await store.fetch(OTHER_OBJECTS)
            if misplaced := payment_methods((gateway, count) for gateway, count in others if gateway == name):
                say(f"{title}: {misplaced}")
            if guards is not None:
                check(counts, unreadable, guards)
                await _apply(store, customer_list, title, counts, total)
    except (UnavailableError, *FAILURES) as lost:
        if not total.done:
            raise
        message = f"{title} stopped, because the database was lost ({total}): run the same command again to continue"
        raise JobStoppedError(message) from lost
    except asyncio.CancelledError as cancelled:
        how_far = f"{total}" if total.done else "nothing was changed"
        if isinstance(cancelled, _StepAbandonedError):
            how_far = f"{total}; later customers may have been changed"
        raise JobStoppedError(f"{title} was interrupted ({how_far}): run the same command again to continue") from None
    return not (unreadable or counts.differences)


async def _export_time(store: TokenStore, path: Path, exported_at: str | None, *, applies: bool) -> datetime:
    """When the gateway's list was begun: what is said, or else, to compare only, when the file was last written."""
    now = await store.now()
    if exported_at is not None:
        at = _instant(exported_at)
    elif applies:
        raise BadInputError(
            "--apply needs --exported-at TIME, the time at which the export began, because later tokens are not in it."
        )
    else:
        at = now if path == PIPE else min(now, _written_at(path))
    if at > now:
        raise BadInputError(f"--exported-at is in the future: {at.isoformat()}.")
    return at


def _written_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _instant(text: str) -> datetime:
    try:
        return instant(text)
    except InputError as refused:
        raise BadInputError(f"--exported-at {quoted(text)}: {refused}") from None


async def _load(customer_list: CustomerList, title: str, options: FileOptions, gateways: Gateways, report: Path) -> int:
    """Load the file's customers. Returns how many lines hold none."""
    unreadable = 0
    with reading(options.path, options.read) as source:
        lines = read_customers(source)
        _say_what_was_recognized(title, source)
        rejected = _rejects_path(options, source)
        expect_other_file("--rejects", rejected, options.path, report)
        with rejects(rejected, source) as reject, progress(title, source.size) as show:

            def customers() -> Iterator[ListedCustomer]:
                nonlocal unreadable
                for line, customer in listed_customers(lines, gateways, customer_list.gateway):
                    if isinstance(customer, ListedCustomer):
                        yield customer
                    else:
                        unreadable += 1
                        reject([customer])
                    if line % _LINES_BETWEEN_UPDATES == 0:
                        show(source.position, f"{line:,} lines")

            await customer_list.load(customers())
    if about := _about_rejects(rejected, unreadable):
        say(f"{title}: {unreadable:,} rejected{about}")
    return unreadable


async def _apply(
    store: TokenStore, customer_list: CustomerList, title: str, counts: ListCounts, total: ApplyTally
) -> None:
    with progress(title, counts.known + counts.missing_there) as show:
        async for some in _finish_steps(apply(store, customer_list)):
            total.add(some)
            show(total.done, str(total))
    say(f"{title}: {total}")
