"""The commands that ask a gateway: what they say while they work and at the end, and their reports."""

import asyncio
import csv
import re
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import structlog

from graphql_api.bulk.jobs import JobStoppedError
from graphql_api.bulk.progress import Show, Write, named, progress, say
from graphql_api.bulk.reconciling import expect_tokens
from graphql_api.domain.errors import BadInputError, InputError
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.values import has_invisible, instant
from graphql_api.gateway_apis.checking import Check, CheckOptions, CheckTally, Found
from graphql_api.gateway_apis.client import GatewayClient, Pace, StoppedError
from graphql_api.gateway_apis.keys import GatewayKey
from graphql_api.gateway_apis.purging import Purge, Purged, PurgeOptions, PurgeOutcome, PurgeTally
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore

_DURATION = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_COLUMNS = ("difference", "reason", "userId", "gateway", "gatewayCustomerId", "id")

_log = structlog.get_logger()


def duration(text: str, option: str) -> timedelta:
    """`12h` or `7d`.

    Raises:
        BadInputError: it is something else; the message names the option.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise BadInputError(f"{option} must be a duration such as 12h or 7d, not {text!r}.")
    return int(found[1]) * _UNITS[found[2]]


def since(text: str, now: datetime) -> datetime:
    """A time, or how long ago it is.

    Raises:
        BadInputError: it is neither, or in the future.
    """
    if _DURATION.fullmatch(text):
        return now - duration(text, "--since")
    try:
        at = instant(text)
    except InputError:
        message = f"--since must be a time such as 2026-11-30T08:00:00Z, or a duration such as 30d, not {text!r}."
        raise BadInputError(message) from None
    if at > now:
        raise BadInputError(f"--since is in the future: {at.isoformat()}.")
    return at


def skipped_customers(path: Path) -> frozenset[str]:
    """The customer ids in a file, one on each line; empty lines and those that begin with # are left out.

    Raises:
        BadInputError: it cannot be read, a line is not the id alone, or there is none: what was to be kept would be
            deleted.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadInputError(f"{path} cannot be read: save it as UTF-8.") from None
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    customers = {number: text for number, line in enumerate(lines, 1) if (text := line.strip())[:1] not in {"", "#"}}
    for number, text in customers.items():
        if re.search(r"[\s,;\"']", text) or not text.isprintable() or has_invisible(text):
            raise BadInputError(
                f"{path}, line {number}: write one customer id on each line, without quotes or invisible characters."
            )
    if not customers:
        raise BadInputError(f"{path} names no customers. Write one customer id on each line.")
    return frozenset(customers.values())


async def check_gateway(
    pool: ConnectionPool,
    gateways: Gateways,
    key: GatewayKey,
    options: CheckOptions,
    *,
    pace: Pace | None = None,
    report: Path | None = None,
    logs: bool = False,
    max_facts: int = 1_000_000,
) -> bool:
    """Check the tokens of a gateway. Returns whether the gateway knew and answered all.

    Args:
        pool: the database
        gateways: what is known of gateways
        key: the gateway, and how to ask it
        options: what is to be checked
        pace: how often to ask; None for what the gateway allows
        report: where to write what differs
        logs: whether the summary goes into the log, too
        max_facts: for how many customers without a user the gateway's reports are kept

    Raises:
        BadInputError: there are no tokens at the gateway.
        JobStoppedError: it was interrupted, or to ask on made no sense.
    """
    store = TokenStore(pool, max_facts=max_facts)
    await expect_tokens(store, key.gateway)
    title = f"{'dry run of ' if options.dry_run else ''}check of {key.gateway}"
    with _report(report, _COLUMNS) as write:

        def found(lines: Iterable[Found]) -> None:
            write(
                (each.difference, each.reason, each.user_id, key.gateway, each.customer, each.token_id)
                for each in lines
            )

        pace = pace or Pace(key.api.rate)
        async with GatewayClient.open(key, pace) as client:
            check = Check(store, gateways, key.gateway, client, options, found)
            with progress(title, await check.count()) as show:
                await _run(title, check.run(), check.tally, show, log=logs and ("check", key.gateway))
    say(f"{title}: {check.tally}{_where(report)}")
    return not (check.tally.unknown or check.tally.still_unknown or check.tally.unanswered)


async def purge_gateway(
    pool: ConnectionPool,
    gateways: Gateways,
    key: GatewayKey,
    options: PurgeOptions,
    *,
    report: Path | None = None,
    logs: bool = False,
) -> bool:
    """Delete at a gateway what erased users left there. Returns whether nothing is left but what was to be kept.

    Raises:
        BadInputError: what is to be kept differs from a customer that would be deleted only in the case of letters.
        JobStoppedError: it was interrupted, or to ask on made no sense.
    """
    title = f"{'dry run of ' if options.dry_run else ''}purge of {key.gateway}"
    store = TokenStore(pool)
    if options.skipped:
        kept, wanted = await _kept(store, key.gateway, options.skipped), len(options.skipped)
        say(f"{title}: --skip-file has {wanted:,} customers; on the list, and kept: {kept:,}")
    with _report(report, ("outcome", "reason", "gateway", "gatewayCustomerId")) as write:

        def purged(lines: Sequence[Purged]) -> None:
            write((each.outcome.value, each.reason, key.gateway, each.customer) for each in lines)
            for each in lines:
                if each.outcome is PurgeOutcome.FAILED:
                    say(f"{title}: {each.customer} failed: {each.reason}")

        async with GatewayClient.open(key, Pace(key.api.rate)) as client:
            purge = Purge(store, gateways, key.gateway, client, options, purged)
            with progress(title, await purge.count()) as show:
                await _run(title, purge.run(), purge.tally, show, log=logs and ("purge", key.gateway))
    say(f"{title}: {purge.tally}{_where(report)}")
    return not (purge.tally.unknown or purge.tally.failed)


async def question(pool: ConnectionPool, gateway: str, options: PurgeOptions, database: str) -> str | None:
    """What to ask before a purge of this gateway; None if no customer would be deleted."""
    store = TokenStore(pool)
    count = await store.count_erasures(gateway) - await _kept(store, gateway, options.skipped)
    if count == 0:
        return None
    most = count if options.limit is None else min(count, options.limit)
    return f"Delete {most:,} customers of erased users at {gateway}, as the database {database} lists them?"


async def _kept(store: TokenStore, gateway: str, skipped: Collection[str]) -> int:
    """How many of the customers to be kept are on the list of those to be deleted.

    Raises:
        BadInputError: one is on it in another spelling, so it would be deleted.
    """
    listed = await store.erasures_like(gateway, skipped)
    written = {customer.lower(): customer for customer in skipped if customer not in listed}
    for customer in listed - frozenset(skipped):
        if other := written.get(customer.lower()):
            raise BadInputError(
                f"{other} is not on the list of customers to be deleted, but {customer} is. Correct the file of "
                "customers to be kept, or add this one too."
            )
    return len(listed.intersection(skipped))


async def _run(
    title: str,
    steps: AsyncGenerator[object],
    tally: CheckTally | PurgeTally,
    show: Show,
    *,
    log: tuple[str, str] | Literal[False],
) -> None:
    """Take all steps; how they end is said, and logged with the command and the gateway if that is wanted."""
    ended = "complete"
    try:
        async with aclosing(steps) as each:
            async for _ in each:
                show(tally.asked, str(tally))
    except StoppedError as stopped:
        ended = str(stopped)
        raise JobStoppedError(f"{title} stopped ({tally}): {stopped}. The next run continues there.") from None
    except asyncio.CancelledError:
        ended = "interrupted"
        raise JobStoppedError(f"{title} was interrupted ({tally}): run the same command again to continue") from None
    finally:
        if log:
            _log.info(log[0], gateway=log[1], ended=ended, **asdict(tally))


@contextmanager
def _report(path: Path | None, columns: Sequence[str]) -> Generator[Write]:
    """A CSV file of what is found, if one is wanted; it holds what was found even if the command stops early."""
    if path is None:
        yield lambda _: None
        return
    try:
        opened = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise BadInputError(f"{path} cannot be opened: {error.strerror}") from None
    with opened as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)

        def write(some: Iterable[Sequence[object]]) -> None:
            rows.writerows(some)
            file.flush()

        yield write


def _where(report: Path | None) -> str:
    return f"; details are in {named(report)}" if report else ""
