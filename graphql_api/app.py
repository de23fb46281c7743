"""Wires the parts: what the settings say becomes one ASGI app, whose lifespan opens and closes everything."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, cast

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from graphql_api import __version__, limits
from graphql_api.auth import Authenticator, RouterSecret
from graphql_api.domain.caller import Caller
from graphql_api.engine import Engine
from graphql_api.limits.introspection import NoIntrospectionRule
from graphql_api.limits.trusted import TrustedDocuments
from graphql_api.observability import logs
from graphql_api.observability.metrics import Metrics, Reading, ReplicaReading
from graphql_api.observability.shared_memory import SharedMemory
from graphql_api.schema import build_schema
from graphql_api.schema.context import Context
from graphql_api.service.tokens import Tokens
from graphql_api.settings import ConfigurationError, Settings
from graphql_api.settings.gateways import is_test_gateway
from graphql_api.storage.checks import CheckStore
from graphql_api.storage.connection import Statement
from graphql_api.storage.connection_set import ConnectionSet
from graphql_api.storage.database_metrics import DatabaseMetrics
from graphql_api.storage.endpoints import Endpoints
from graphql_api.storage.feed import Feed
from graphql_api.storage.migrate import must_be_ready
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.replicas import RecentWrites, Replicas
from graphql_api.storage.tokens import TokenStore
from graphql_api.web import graphiql
from graphql_api.web.authentication import RequestAuthenticator
from graphql_api.web.connection import Respond
from graphql_api.web.cors import CORSPolicy
from graphql_api.web.documents import Documents
from graphql_api.web.graphql import GraphQL, RequestLimits
from graphql_api.web.help import HELP
from graphql_api.web.hosts import AllowedHosts
from graphql_api.web.probes import INDEX, METRICS, NOT_FOUND, PROBES, Readiness
from graphql_api.web.request import Request, Response
from graphql_api.web.security_headers import SecurityHeadersMiddleware
from graphql_api.web.tracing import Traced, TracedGraphQL
from graphql_api.web.uploads import Uploads
from graphql_api.webhooks import WebhookEndpoint, webhooks

GRAPHQL_PATH = "/graphql"

if TYPE_CHECKING:
    from graphql_api.observability.tracing import Tracing


class State(TypedDict):
    """What is open while the app runs."""

    compresses: bool
    graphql: GraphQL
    metrics: Metrics
    metrics_of_database: Sequence[DatabaseMetrics]
    readiness: Readiness
    respond: Respond
    store: TokenStore
    uploads: Uploads


def create_app(settings: Settings, shared: SharedMemory | None = None) -> ASGIApp:
    """The service as an ASGI app. Nothing is open before its lifespan begins; several workers share their metrics."""
    tracing = _tracing(settings)
    logs.configure(settings.log_level, settings.log_format, stamps=[tracing.stamp] if tracing else [])
    metrics = Metrics(__version__, shared)
    trusted, authentication = _trusted_documents(settings), _authentication(settings)
    engine = _engine(settings, tracing, for_routers=bool(settings.router_secret))
    engine_of_services = engine
    if settings.authenticates and not settings.router_secret:
        engine_of_services = _engine(settings, tracing, engine, for_routers=True)
    hosts = None if settings.authenticates else AllowedHosts(settings.allowed_hosts)
    writes = RecentWrites()  # before there are workers, who share it

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[State]:
        async with (
            tracing.open() if tracing else nullcontext(),
            _storage(settings, metrics, tracing, writes) as (store, replicas),
            authentication as authenticator,
        ):
            database = store.pool
            uploads = Uploads(settings.max_concurrent_requests * settings.max_body_bytes)
            graphql = _graphql(
                settings,
                Documents(engine=engine, engine_of_services=engine_of_services, trusted=trusted),
                store,
                replicas,
                authenticator,
                metrics,
                tracing,
                uploads,
                hosts,
                cors,
            )
            async with metrics.collecting(
                lambda: _reading(graphql, database.connections, replicas, authenticator, tracing)
            ):
                try:
                    yield {
                        "compresses": settings.compression,
                        "graphql": graphql,
                        "metrics": metrics,
                        "metrics_of_database": [
                            DatabaseMetrics(
                                partial(_show_checks, CheckStore(database), metrics),
                                interval_seconds=15,
                                timeout_seconds=0.5,
                            ),
                            DatabaseMetrics(
                                partial(_show_events, store.feed, Endpoints(database, ""), metrics),
                                interval_seconds=5,
                                timeout_seconds=0.6,  # of which the feed takes up to 0.25
                            ),
                        ],
                        "readiness": Readiness(partial(_must_be_ready, database, authenticator)),
                        "respond": _direct(graphql, settings),
                        "store": store,
                        "uploads": uploads,
                    }
                finally:
                    await graphql.close()
                    logs.access.flush()

    probes = PROBES if settings.metrics_port is None else [route for route in PROBES if route is not METRICS]
    starlette = Starlette(
        routes=[INDEX, *graphiql.routes(is_on=settings.introspects), *HELP, *probes, *(events := _webhooks(settings))],
        lifespan=lifespan,
        exception_handlers=NOT_FOUND,
    )
    starlette.router.redirect_slashes = False
    pages: ASGIApp = SecurityHeadersMiddleware(starlette, hosts)
    cors = CORSPolicy(starlette, settings.cors_origins, settings.cors_headers) if settings.cors_origins else None
    preflights = SecurityHeadersMiddleware(cors, hosts) if cors else None
    operators = Starlette(routes=PROBES, exception_handlers=NOT_FOUND)
    operators.router.redirect_slashes = False
    operators_pages = SecurityHeadersMiddleware(operators, hosts)
    if tracing:
        pages = Traced(pages, tracing, {route.path for route in events})

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            if settings.metrics_port is not None and scope["server"][1] == settings.metrics_port:
                return operators_pages(scope, receive, send)
            if scope["path"] == GRAPHQL_PATH:
                headers = dict(scope["headers"])
                if preflights and _is_preflight(scope["method"], headers):
                    return preflights(scope, receive, send)
                if not graphiql.is_for_a_browser(
                    scope["method"], headers.get(b"accept"), scope["query_string"], is_on=settings.introspects
                ):
                    return scope["state"]["graphql"](scope, receive, send)
        return pages(scope, receive, send)

    return app


def _direct(graphql: GraphQL, settings: Settings) -> Respond:
    """What the connection asks for answers; whatever this leaves to the app is a page."""
    introspects, has_cors, metrics_port = settings.introspects, bool(settings.cors_origins), settings.metrics_port

    def respond(request: Request) -> Coroutine[Any, Any, Response | None] | None:
        if request.path != GRAPHQL_PATH or (has_cors and _is_preflight(request.method, request.headers)):
            return None
        if metrics_port is not None and request.server is not None and request.server[1] == metrics_port:
            return None
        if request.method != "POST" and graphiql.is_for_a_browser(
            request.method, request.headers.get(b"accept"), request.query_string, is_on=introspects
        ):
            return None
        return graphql.respond(request)

    return respond


def _is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    return method == "OPTIONS" and b"access-control-request-method" in headers


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    from graphql_api.observability.tracing import Tracing  # noqa: PLC0415 - most starts need not wait for it

    return Tracing(__version__)


def _engine(
    settings: Settings, tracing: "Tracing | None", like: Engine | None = None, *, for_routers: bool = False
) -> Engine:
    """An engine, of the same schema as another one, with room for the documents that routers make."""
    # Strawberry has no public name for what it made of the types.
    schema = like.schema if like else cast("Any", build_schema())._schema  # noqa: SLF001
    document_limits = limits.DocumentLimits.from_settings(settings)
    return Engine(
        schema,
        mode=settings.engine,
        rules=[] if settings.introspects else [NoIntrospectionRule],
        before_validation=[limits.document_check(document_limits.for_routers() if for_routers else document_limits)],
        before_execution=[
            limits.request_checks(
                max_representations=settings.max_representations,
                max_cost=settings.max_cost,
                of_batches=document_limits.of_batches(for_routers=for_routers),
            )
        ],
        max_tokens=settings.max_tokens,
        max_batch_tokens=settings.max_tokens * (limits.FOR_ROUTERS if for_routers else 1),
        suggestions=settings.introspects,
        phase=(lambda name: tracing.span(f"graphql.{name}")) if tracing else nullcontext,
    )


async def _show_checks(checks: CheckStore, metrics: Metrics) -> None:
    for summary in await checks.summaries():
        metrics.check(
            summary.gateway,
            summary.counts._asdict(),
            finished_at=summary.finished_at.timestamp() if summary.finished_at else None,
            oldest_at=summary.oldest_at.timestamp() if summary.oldest_at else None,
        )


async def _show_events(feed: Feed, endpoints: Endpoints, metrics: Metrics) -> None:
    place, lag = await feed.measure()
    metrics.event_feed(lag)
    metrics.event_endpoints(await endpoints.lags(place.position))


def _reading(
    graphql: GraphQL,
    connections: ConnectionSet,
    replicas: Replicas,
    authenticator: Authenticator,
    tracing: "Tracing | None",
) -> Reading:
    return Reading(
        requests_in_flight=graphql.in_flight,
        connections_in_use=connections.in_use,
        connections_idle=connections.idle,
        connections_allowed=connections.size,
        waiting_for_connection=connections.waiting,
        connections_lost=connections.losses,
        statements_too_long=connections.timeouts,
        database_is_away=bool(connections.trouble),
        token_cache_hits=authenticator.cache_hits,
        token_cache_misses=authenticator.cache_misses,
        engine_fallbacks=graphql.documents.fallbacks,
        replicas={replica.name: ReplicaReading(replica.is_well, replica.lag) for replica in replicas},
        spans_lost=tracing.spans_lost if tracing else 0,
    )


@asynccontextmanager
async def _storage(
    settings: Settings, metrics: Metrics, tracing: "Tracing | None", writes: RecentWrites
) -> AsyncGenerator[tuple[TokenStore, Replicas]]:
    def observe(statement: Statement, seconds: float, _error: BaseException | None) -> None:
        metrics.statement(statement.name, seconds)

    def observe_and_trace(statement: Statement, seconds: float, error: BaseException | None) -> None:
        metrics.statement(statement.name, seconds)
        cast("Tracing", tracing).statement(statement.name, seconds, error)

    open_database = partial(
        ConnectionPool.open,
        size=settings.database_pool_size,
        timeout=settings.database_timeout,
        prepares=settings.database_prepared_statements,
        connect_timeout=settings.database_connect_timeout,
        observe=observe_and_trace if tracing else observe,
    )
    async with open_database(str(settings.database_url)) as database:
        max_facts = settings.max_unknown_customers
        noted = (writes.note,) if settings.database_replica_url else ()
        store = TokenStore(database, *noted, max_facts=max_facts)
        async with Replicas.open(
            settings.database_replica_url, open_database, store, writes, max_lag_seconds=settings.replica_max_lag
        ) as replicas:
            yield store, replicas


def _authentication(settings: Settings) -> AbstractAsyncContextManager[Authenticator]:
    try:
        return Authenticator.open(
            enabled=settings.authenticates,
            jwks_url=settings.auth_jwks_url,
            jwks_file=settings.auth_jwks_file,
            secret=settings.auth_secret.get_secret_value() if settings.auth_secret else None,
            issuer=settings.auth_issuer,
            audience=settings.auth_audience,
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{'AUTH_JWKS_FILE' if settings.auth_jwks_file else 'AUTH_SECRET'} {error}") from None


async def _must_be_ready(database: ConnectionPool, authenticator: Authenticator) -> str:
    """As `must_be_ready`; the text also says that no access token can be verified yet."""
    note = await must_be_ready(database)
    if note or authenticator.has_keys or authenticator.problem is None:
        return note
    return f"Access tokens cannot be verified, because AUTH_JWKS_URL gave no keys yet: {authenticator.problem}."


def invalid_documents(settings: Settings) -> list[str]:
    """Which trusted documents cannot run, and why, by the limits of the callers who have the widest ones."""
    trusted = _trusted_documents(settings)
    if trusted is None:
        return []
    for_routers = settings.authenticates or bool(settings.router_secret)
    engine = _engine(settings, None, for_routers=for_routers)
    return [f"TRUSTED_DOCUMENTS: {problem}" for problem in trusted.invalid(engine.errors_of)]


def _trusted_documents(settings: Settings) -> TrustedDocuments | None:
    if settings.trusted_documents is None:
        return None
    try:
        return TrustedDocuments.load(settings.trusted_documents)
    except ValueError as error:
        raise ConfigurationError(f"TRUSTED_DOCUMENTS: {error}") from None


def _graphql(
    settings: Settings,
    documents: Documents,
    store: TokenStore,
    replicas: Replicas,
    authenticator: Authenticator,
    metrics: Metrics,
    tracing: "Tracing | None",
    uploads: Uploads,
    hosts: AllowedHosts | None,
    cors: CORSPolicy | None,
) -> GraphQL:
    gateways, has_replicas = settings.rules_of_gateways, bool(settings.database_replica_url)
    router_secret = RouterSecret(secret.get_secret_value() for secret in settings.router_secret)

    def context(caller: Caller, request_id: str, user_errors: list[str]) -> Context:
        tokens = Tokens(store, caller, gateways, replicas.reads(caller) if has_replicas else store)
        return Context(tokens, request_id, metrics.batch, metrics.user_error, user_errors)

    make = partial(TracedGraphQL, tracing=tracing) if tracing else GraphQL
    return make(
        documents=documents,
        authenticator=RequestAuthenticator(router_secret, authenticator),
        context=context,
        metrics=metrics,
        wait_connected=store.pool.connections.wait_connected,
        limits=RequestLimits(
            max_body_bytes=settings.max_body_bytes,
            max_concurrent=settings.max_concurrent_requests,
            timeout_seconds=settings.request_timeout,
            max_batch=settings.max_batch_requests,
        ),
        uploads=uploads,
        hosts=hosts,
        cors_headers=cors.of_answer if cors else None,
        compresses=settings.compression,
        # Running an operation for it takes several times as long: only who shows to be the router may ask for that.
        traces_fields=bool(settings.router_secret) or not settings.authenticates,
    )


def _webhooks(settings: Settings) -> list[Route]:
    def endpoints(secrets: Iterable[SecretStr], accounts: Iterable[str]) -> list[WebhookEndpoint]:
        pairs = [secret.get_secret_value().split(":", 1) for secret in secrets]
        named = [account.split(":", 1) for account in accounts]
        return [
            WebhookEndpoint(
                gateway,
                secret,
                frozenset(account for of, account in named if of == gateway),
                is_test_gateway(gateway, settings.test_gateways),
            )
            for gateway, secret in pairs
        ]

    return webhooks(
        gateways=settings.rules_of_gateways,
        max_body_bytes=settings.max_body_bytes,
        max_seconds=settings.request_timeout,
        stripe=endpoints(settings.stripe_webhook_secret, settings.stripe_accounts),
        adyen=endpoints(settings.adyen_webhook_hmac_key, settings.adyen_merchant_accounts),
    )


PARTS: tuple[Callable[[Settings], object], ...] = (_trusted_documents, _webhooks)
"""What raises ConfigurationError for settings that look valid until they are used."""
