"""The commands that ask gateways' APIs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphql_api.cli.options import (
    EmbeddedOption,
    GatewayOption,
    LimitOption,
    ReportOption,
    YesOption,
    must_be_readable,
)
from graphql_api.cli.process import described, load_settings, must_be_asked, run_bulk

if TYPE_CHECKING:
    from graphql_api.gateway_apis.keys import GatewayKey
    from graphql_api.settings import Settings


commands = typer.Typer()


@commands.command()
def check(
    *,
    gateway: GatewayOption,
    limit: LimitOption = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Requests per second. Default: below the gateway's rate limit.", metavar="N", min=0.1, max=10_000
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Read deletions since this time, or this far back, such as 30d. Default: since the last check.",
            metavar="TIME",
        ),
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(
            help="Check only customers that have not been verified for this long, such as 12h or 7d.",
            metavar="DURATION",
        ),
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Query the gateway, and change nothing.")] = False,
    report: ReportOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Check with a gateway's API whether customers still exist.

    Reads the gateway's list of deletions first, then queries the customers that were verified longest ago.
    Deactivates customers that the gateway has deleted, verifies those that exist, and reports those that the
    gateway does not know. Concurrent checks share the work, and each check continues where the last one stopped.
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
        lambda pool, gateways: jobs.check_gateway(
            pool,
            gateways,
            key,
            options,
            pace=pace,
            report=report,
            logs=logs,
            max_facts=settings.max_unknown_customers,
        ),
        embedded=embedded,
        given=settings,
    )


@commands.command()
def purge(
    *,
    gateway: GatewayOption,
    limit: LimitOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Count the customers that would be deleted (--report lists them), and delete nothing."
        ),
    ] = False,
    missing_is_done: Annotated[
        bool,
        typer.Option("--missing-is-done", help="Treat customers as deleted if the gateway does not know them."),
    ] = False,
    skip_file: Annotated[
        Path | None,
        typer.Option(
            help="A file of customer ids to keep, one per line.",
            metavar="FILE",
            dir_okay=False,
            callback=must_be_readable,
        ),
    ] = None,
    yes: YesOption = False,
    report: ReportOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Delete erased users' customers at the gateway.

    Each deletion is then confirmed, as with confirmGatewayErasures. Customers that still belong to a user are never
    deleted. If a deletion fails, the purge continues with the next customer.
    """
    from graphql_api.bulk.files.opening import expect_other_file
    from graphql_api.gateway_apis import jobs
    from graphql_api.gateway_apis.purging import PurgeOptions

    settings, key, logs = _gateway_key(gateway)
    if skip_file is not None and report is not None:
        expect_other_file("--report", report, skip_file)
    skipped = frozenset[str]() if skip_file is None else jobs.skipped_customers(skip_file)
    options = PurgeOptions(limit, dry_run, missing_is_done, skipped)
    is_asked = not (yes or dry_run)
    if is_asked:
        must_be_asked("purge permanently deletes customers. Pass --yes to confirm, or --dry-run to see which.")
    run_bulk(
        lambda pool, gateways: jobs.purge_gateway(pool, gateways, key, options, report=report, logs=logs),
        embedded=embedded,
        asks=(lambda pool: jobs.question(pool, key.gateway, options, described(settings))) if is_asked else None,
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
