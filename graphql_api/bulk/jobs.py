"""The bulk commands: a file on one side, the service on the other, and what is said about it in between."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from graphql_api.bulk.exporting import export
from graphql_api.bulk.files.customer_columns import read_customer_ids, read_id_changes
from graphql_api.bulk.files.sources import PIPE, Source, format_of, reading, writing
from graphql_api.bulk.files.token_columns import read_tokens
from graphql_api.bulk.importing import import_tokens
from graphql_api.bulk.progress import progress, rejects, say
from graphql_api.bulk.reconciling import apply, check
from graphql_api.bulk.records import Format, Report
from graphql_api.bulk.remapping import remap
from graphql_api.domain.errors import BadInputError, InputError, Problem
from graphql_api.domain.filter import TokenFilter
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.values import instant
from graphql_api.storage.customer_lists import CustomerList, ListCounts
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore

T = TypeVar("T")

_LINES_BETWEEN_UPDATES = 10_000


class JobStoppedError(Exception):
    """A command was interrupted; the message says where."""


@dataclass(slots=True)
class _Totals:
    """What became of the lines so far."""

    line: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    rejected: int = 0

    def add(self, report: Report) -> None:
        self.line = report.line
        self.created += report.created
        self.changed += report.changed
        self.unchanged += report.unchanged
        self.rejected += len({line for line, _ in report.rejected})

    def __str__(self) -> str:
        counts = ((name, getattr(self, name)) for name in ("created", "changed", "unchanged", "rejected"))
        return ", ".join(f"{count:,} {name}" for name, count in counts if count) or "nothing to do"


async def import_file(
    database: ConnectionPool, gateways: Gateways, path: Path, format_: Format | None, rejects_path: Path | None
) -> bool:
    """Save the tokens of this file. Answers whether all of them could be.

    Raises:
        BadInputError: the file cannot be read, has no known format, or does not name its columns.
        JobStoppedError: it was interrupted.
    """

    def reports(source: Source) -> AsyncGenerator[Report]:
        return import_tokens(TokenStore(database), gateways, read_tokens(source))

    return await _run_job("import", path, format_, rejects_path, reports)


async def remap_file(
    database: ConnectionPool,
    gateways: Gateways,
    path: Path,
    format_: Format | None,
    rejects_path: Path | None,
    *,
    gateway: str,
    dry_run: bool,
) -> bool:
    """Replace old identifiers by new ones. Answers whether all of them could be.

    Raises:
        BadInputError: the gateway is none, or the file cannot be read, has no known format or other columns.
        JobStoppedError: it was interrupted.
    """
    name = _gateway(gateways, gateway)

    def reports(source: Source) -> AsyncGenerator[Report]:
        return remap(TokenStore(database), gateways, name, read_id_changes(source), dry_run=dry_run)

    return await _run_job("dry run of remap" if dry_run else "remap", path, format_, rejects_path, reports)


def _gateway(gateways: Gateways, text: str) -> str:
    try:
        return gateways.parse(text)
    except InputError as refused:
        raise BadInputError(str(refused)) from None


async def _run_job(
    verb: str,
    path: Path,
    format_: Format | None,
    rejects_path: Path | None,
    reports: Callable[[Source], AsyncGenerator[Report]],
) -> bool:
    rejects_path = rejects_path or _sibling(path, "rejects")
    title = f"{verb} {path}"
    totals = _Totals()
    with reading(path, format_) as source, rejects(rejects_path) as reject, progress(title, source.size) as show:
        try:
            async with aclosing(reports(source)) as some:
                async for report in _finish_steps(some):
                    totals.add(report)
                    reject(_row(line, problem) for line, problem in report.rejected)
                    show(source.position, f"{totals.line:,} lines, {totals}")
        except BadInputError:
            raise
        except asyncio.CancelledError:
            raise JobStoppedError(_stop(title, totals)) from None
        except Exception:
            say(_stop(title, totals))
            raise
    say(f"{title}: {totals}" + (f"; reasons are in {rejects_path}" if totals.rejected else ""))
    return not totals.rejected


async def _finish_steps(steps: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """These steps; an interruption lets the one under way end, and be told, before it takes effect."""
    while True:
        step = asyncio.ensure_future(anext(steps, None))
        try:
            done = await asyncio.shield(step)
        except asyncio.CancelledError:
            if (done := await step) is not None:
                yield done
            raise
        if done is None:
            return
        yield done


def _row(line: int, problem: Problem) -> tuple[object, ...]:
    return line, ".".join(problem.field), problem.code.value, problem.message


def _sibling(path: Path, kind: str) -> Path:
    return Path(f"{'stdin' if path == PIPE else path}.{kind}.csv")


def _stop(title: str, totals: _Totals) -> str:
    return f"{title} stopped after line {totals.line:,} ({totals}): run the same command again to continue"


async def export_file(database: ConnectionPool, path: Path, format_: Format | None) -> None:
    """Write all tokens to this file, which is whole or not there.

    Raises:
        BadInputError: the file cannot be written, or has no known format.
        JobStoppedError: it was interrupted.
    """
    format_ = format_of(path, format_)
    title = f"export {path}"
    total = await TokenStore(database).count(TokenFilter())
    with writing(path) as file, progress(title, total) as show:
        lines = 0

        def write(chunk: bytes) -> None:
            nonlocal lines
            file.write(chunk)
            lines += chunk.count(b"\n")
            show(lines, f"{lines:,} lines")

        try:
            async with database.transaction("set transaction read only", commits=False) as connection:
                rows = await export(connection.raw, format_, write)
        except asyncio.CancelledError:
            raise JobStoppedError(f"{title} was interrupted: nothing was written") from None
    say(f"{title}: {rows:,} tokens")


async def reconcile_file(
    database: ConnectionPool,
    gateways: Gateways,
    path: Path,
    format_: Format | None,
    report_path: Path | None,
    *,
    gateway: str,
    column: str | None,
    exported_at: str | None,
    applies: bool,
    force: bool,
) -> bool:
    """Compare with a gateway's list of its customers. Answers whether nothing differs.

    Raises:
        BadInputError: what was asked for cannot be understood, or the file cannot be read or has other columns.
        InputError: the list looks as if a part of it were not there, so nothing was changed.
        JobStoppedError: it was interrupted.
    """
    store = TokenStore(database)
    name = _gateway(gateways, gateway)
    at = await _export_time(store, path, exported_at)
    report_path = report_path or _sibling(path, "report")
    title = f"reconcile {path} with {name}"
    try:
        async with store.transaction(()) as transaction:
            customer_list = CustomerList(transaction.raw, name, at)
            unreadable = await _load(customer_list, title, path, format_, column)
            counts = await customer_list.counts()
            with writing(report_path) as file:
                await customer_list.report(file.write)
            say(f"{title}: {counts}; differences are in {report_path}")
            if applies:
                if not force:
                    check(counts, unreadable)
                await _apply(store, customer_list, title, counts)
    except asyncio.CancelledError:
        raise JobStoppedError(f"{title} was interrupted: run the same command again to continue") from None
    return not (unreadable or counts.missing or counts.unknown)


async def _export_time(store: TokenStore, path: Path, exported_at: str | None) -> datetime:
    """When the gateway's list was begun: what is said, or else when the file was last written."""
    at = _written(path) if exported_at is None else _instant(exported_at)
    if at > await store.now():
        raise BadInputError(f"--exported-at is in the future: {at.isoformat()}.")
    return at


def _written(path: Path) -> datetime:
    if path == PIPE:
        raise BadInputError("A pipe has no date. Say when the export began with --exported-at.")
    with reading(path, "csv") as source:
        return datetime.fromtimestamp(os.fstat(source.file.fileno()).st_mtime, UTC)


def _instant(text: str) -> datetime:
    try:
        return instant(text)
    except InputError as refused:
        raise BadInputError(f"--exported-at: {refused}") from None


async def _load(customer_list: CustomerList, title: str, path: Path, format_: Format | None, column: str | None) -> int:
    """Take up the file's identifiers. Answers how many lines have none."""
    unreadable = 0
    rejects_path = _sibling(path, "rejects")
    with reading(path, format_) as source, rejects(rejects_path) as reject, progress(title, source.size) as show:

        def customers() -> Iterator[str]:
            nonlocal unreadable
            for line, customer in read_customer_ids(source, column):
                if isinstance(customer, str):
                    yield customer
                else:
                    unreadable += 1
                    reject([_row(line, customer)])
                if line % _LINES_BETWEEN_UPDATES == 0:
                    show(source.position, f"{line:,} lines")

        await customer_list.load(customers())
    if unreadable:
        say(f"{title}: {unreadable:,} of the lines have no customer id; they are listed in {rejects_path}")
    return unreadable


async def _apply(store: TokenStore, customer_list: CustomerList, title: str, counts: ListCounts) -> None:
    deactivated = verified = 0
    with progress(title, counts.known + counts.missing) as show:
        async for some in _finish_steps(apply(store, customer_list)):
            deactivated += some.deactivated
            verified += some.verified
            show(deactivated + verified, f"{deactivated:,} deactivated, {verified:,} verified")
    say(f"{title}: {deactivated:,} deactivated, {verified:,} verified")
