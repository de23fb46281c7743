"""What `serve` does before it serves: its sockets, and what it tells a newcomer."""

import json
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from socket import socket
from urllib.parse import urlencode

import structlog
from pydantic import SecretStr

from graphql_api import __version__, server
from graphql_api.app import invalid_documents
from graphql_api.auth.access_tokens import mint
from graphql_api.cli.process import CommandError, UsageError
from graphql_api.observability import logs
from graphql_api.settings import Settings
from graphql_api.settings.advice import weaknesses
from graphql_api.storage.connector import FAILURES, connect_to_primary
from graphql_api.storage.grants import missing_grants

_PORTS = "--host, --port or METRICS_PORT"


@contextmanager
def listening(settings: Settings, host: str, port: int, workers: int) -> Generator[list[server.Listeners]]:
    """Each worker's sockets: the public one, and that of METRICS_PORT.

    If access tokens are not checked, only this machine can connect, unless AUTH_MODE says that this is intended.

    Raises:
        UsageError: everybody could connect and change everything, or there is one port for two things.
        CommandError: a socket cannot be opened.
    """
    with ExitStack() as closing:

        def opened(port: int) -> list[socket]:
            try:
                return closing.enter_context(server.listening(host, port, workers))
            except OSError as error:
                raise CommandError(
                    f"cannot listen on port {port} of {host}: {error.strerror}; try another value of {_PORTS}"
                ) from None

        try:
            is_open = not settings.authenticates and settings.auth_mode is None and not server.is_loopback(host)
        except OSError as error:
            raise CommandError(
                f"cannot listen on port {port} of {host}: {error.strerror}; try another value of {_PORTS}"
            ) from None
        if is_open:
            raise UsageError(
                f"{_everyone(settings, host)} could read and change every token: set AUTH_JWKS_URL, AUTH_JWKS_FILE or "
                "AUTH_SECRET to require access tokens, or AUTH_MODE=disabled if that is what you want"
            )
        if port == settings.metrics_port:
            raise UsageError(f"METRICS_PORT and --port are both {port}: change one of them")
        ports = [port] if settings.metrics_port is None else [port, settings.metrics_port]
        yield [*zip(*map(opened, ports), strict=True)]


def warn_of_settings(settings: Settings) -> None:
    """Name in the log each setting that is valid and unsafe, and each trusted document that cannot run."""
    for problem in weaknesses(settings):
        structlog.get_logger().warning("weak setting", problem=problem)
    for problem in invalid_documents(settings):
        structlog.get_logger().warning("invalid trusted document", problem=problem)


async def warn_of_missing_grants(url: str) -> None:
    """Name in the log each grant that the role of this database URL lacks: what needs it will answer `INTERNAL`."""
    with suppress(*FAILURES):  # which `/readyz` reports
        connection = await connect_to_primary(url)
        try:
            for statement in await missing_grants(connection):
                structlog.get_logger().warning("missing grant", run=statement)
        finally:
            await connection.close()


def announce(settings: Settings, host: str, port: int, *, workers: int, database: str) -> None:
    """Log and print what runs where; unless only programs read it, tell a newcomer what to try and what is off."""
    address = ip_address(host)
    listens_on = f"[{host}]:{port}" if address.version == 6 else f"{host}:{port}"  # noqa: PLR2004
    structlog.get_logger().info(
        "started",
        version=__version__,
        address=listens_on,
        metrics_port=settings.metrics_port,
        workers=workers,
        database=database,
    )
    shown = "localhost" if address.is_unspecified else f"[{host}]" if address.version == 6 else host  # noqa: PLR2004
    base = f"http://{shown}:{port}"
    url = f"{base}/graphql"
    processes = f"{workers} workers" if workers > 1 else "1 worker"
    print(
        f"Serving {url} - gateway-tokens {__version__}, {processes}, database: {database}. Press Ctrl-C to stop.",
        flush=True,
    )
    if logs.is_json(settings.log_format) and not sys.stdout.isatty():
        return
    if settings.authenticates:
        if not settings.auth_secret or not address.is_loopback:
            return
        if not settings.introspects:
            says = "To turn it on, set INTROSPECTION=true. On a terminal, you then get an access token for each role."
            print(f"\nGraphiQL is off. {says}", flush=True)
        elif sys.stdout.isatty():
            roles = _token_of_each_role(settings, settings.auth_secret)
            print(f"\nGraphiQL, with an access token for each role, valid for eight hours:\n{url}#{roles}", flush=True)
        return
    query = "{ customerGatewayTokens(first: 3) { nodes { userId gateway gatewayCustomerId isActive } } }"
    body = json.dumps({"query": query}, separators=(",", ":"))
    first = "ROUTER_SECRET" if len(settings.router_secret) == 1 else "{ROUTER_SECRET%%,*}"
    secret = f' -H "Router-Authorization: ${first}"' if settings.router_secret else ""
    metrics = f"{base}/metrics" if settings.metrics_port is None else f"http://{shown}:{settings.metrics_port}/metrics"
    print(
        f"""
In a browser:  {url}
A query:       {query}
In a shell:    curl -s {url} -H 'Content-Type: application/json'{secret} -d '{body}'
Health:        {base}/readyz and {metrics}

Authentication is off, for development: {_everyone(settings, "this address")} can read and change every token.
To require access tokens, set AUTH_JWKS_URL or AUTH_SECRET.
`gateway-tokens help configuration` explains all settings.""",
        flush=True,
    )


def _everyone(settings: Settings, address: str) -> str:
    """Who can read and change everything if access tokens are not checked."""
    if settings.router_secret:
        return "anyone who can reach your router, or knows ROUTER_SECRET,"
    return f"anyone who can reach {address}"


def _token_of_each_role(settings: Settings, secret: SecretStr) -> str:
    """Access tokens for GraphiQL's menu. They are in the URL's fragment, which a browser sends to no server."""
    roles = {"user-1": "", "payments": "gateway-tokens:write", "admin": "gateway-tokens:admin"}
    return urlencode({sub: minted(settings, secret, sub, scope, expires_in=8 * 3600) for sub, scope in roles.items()})


def minted(settings: Settings, secret: SecretStr, sub: str, scope: str, expires_in: int) -> str:
    """An access token for `sub`, as this service takes it."""
    return mint(
        secret.get_secret_value(),
        sub,
        tuple(scope.split()),
        expires_in=expires_in,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
    )
