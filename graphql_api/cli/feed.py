"""The command that sends the change feed."""

import signal
import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from graphql_api import __version__
from graphql_api.cli.options import EmbeddedOption
from graphql_api.cli.process import CommandError, UsageError, database, described, load_settings, run, run_bulk

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphql_api.settings import Settings
    from graphql_api.storage.pool import ConnectionPool


commands = typer.Typer()


@commands.command()
def deliver(
    *,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Deliver the current backlog and exit, with status 1 if an entry could not be delivered."
        ),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(help="Enable this endpoint, and exit. It continues after its last entry.", metavar="NAME"),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="With --resume: continue after this cursor.", metavar="CURSOR")
    ] = None,
    skip: Annotated[bool, typer.Option("--skip", help="With --resume: skip the entry that failed.")] = False,
    embedded: EmbeddedOption = False,
) -> None:
    """Send changes to EVENT_WEBHOOKS as signed webhooks.

    Signatures follow Standard Webhooks. You can run several processes. A new endpoint receives only changes made
    from now on. If an endpoint does not accept an entry, `deliver` retries it for 76 hours, then disables the
    endpoint. Later entries wait until you run --resume.
    """
    if resume is None and (from_ is not None or skip):
        raise typer.BadParameter("--from and --skip need --resume NAME.")
    if resume is not None and (once or (from_ is not None and skip)):
        raise typer.BadParameter(
            "--resume can be combined with --from or --skip, but not with both, and not with --once."
        )
    settings = load_settings()
    if resume is not None:
        _resume_endpoint(settings, resume, cursor=from_, skip=skip, embedded=embedded)
        print(f"{resume} is enabled.")
        return
    if not settings.event_webhooks:
        raise UsageError(
            "EVENT_WEBHOOKS is not set. Set it to endpoints such as billing=https://billing.example/events."
        )
    behind = _deliver_events(settings, once=once, embedded=embedded)
    for name, reason in behind.items():
        print(f"gateway-tokens: {name} stays behind: {reason}", file=sys.stderr)
    if behind:
        raise typer.Exit(1)


def _deliver_events(settings: "Settings", *, once: bool, embedded: bool) -> dict[str, str]:
    """Deliver to the endpoints of the settings, until a signal asks to stop or, `once`, what there is.

    Returns the endpoints that stay behind, and why.
    """
    import asyncio

    import structlog

    from graphql_api.deliveries import delivering
    from graphql_api.deliveries.sending import Endpoint, HTTPSender, Sender
    from graphql_api.observability import logs
    from graphql_api.storage.migrate import upgrade
    from graphql_api.storage.pool import ConnectionPool

    endpoints = [Endpoint(*endpoint) for endpoint in settings.event_endpoints]
    open_stream: Callable[..., AbstractAsyncContextManager[Sender]] | None = None
    if any(endpoint.is_stream for endpoint in endpoints):
        try:
            from graphql_api.deliveries.jetstream import JetStreamSender
        except ModuleNotFoundError as error:
            raise CommandError(
                "EVENT_WEBHOOKS contains a NATS stream, which needs `pip install 'customer-gateway-tokens[nats]'`."
            ) from error
        open_stream = JetStreamSender.open

    def open_sender(endpoint: Endpoint, timing: delivering.DeliveryTiming) -> AbstractAsyncContextManager[Sender]:
        allow_private = settings.event_webhook_allow_private
        if endpoint.is_stream and open_stream is not None:
            return open_stream(endpoint, allow_private=allow_private, timeout=timing.answer)
        return HTTPSender.open(endpoint, allow_private=allow_private, timeout=timing.answer, read_timeout=timing.read)

    async def work(url: str) -> dict[str, str]:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def stop_by(number: signal.Signals) -> None:
            log.info("stopping", signal=number.name)
            stop.set()

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
                loop.add_signal_handler(number, stop_by, number)
            if not once:
                names = [endpoint.name for endpoint in endpoints]
                log.info("started", version=__version__, endpoints=names, database=name)
                await delivering.run(made)
                log.info("stopped")
                return {}
            reasons = await asyncio.gather(*(each.once() for each in made))
            return {each.name: reason for each, reason in zip(made, reasons, strict=True) if reason}

    logs.configure(settings.log_level, settings.log_format)
    log, name = structlog.get_logger(), described(settings)
    with database(settings, embedded=embedded) as opened:
        return run(work(str(opened.database_url)))


def _resume_endpoint(settings: "Settings", name: str, *, cursor: str | None, skip: bool, embedded: bool) -> None:
    """Enable an endpoint of `deliver`.

    Raises:
        BadInputError: there is no such endpoint, or no such cursor.
    """
    from graphql_api.deliveries import delivering
    from graphql_api.domain.errors import BadInputError
    from graphql_api.schema.cursors import to_position

    try:
        position = to_position(cursor) if cursor is not None else None
    except BadInputError as refused:
        raise BadInputError(f"--from: {refused}") from None

    async def work(pool: "ConnectionPool") -> None:
        left_out = await delivering.resume(pool, name, start=position, skip=skip)
        if left_out is not None:
            print(f"{name} leaves out {left_out}.")

    run_bulk(lambda pool, _: work(pool), embedded=embedded, given=settings)
