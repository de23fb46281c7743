"""What `serve` does before it serves: its sockets, the folder of its workers' metrics, and what it tells a newcomer."""

import json
import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from pydantic import SecretStr

from graphql_api import server
from graphql_api.auth.access_tokens import mint
from graphql_api.process import CommandError, UsageError
from graphql_api.settings import Settings


@contextmanager
def listening(settings: Settings, host: str, port: int, workers: int) -> Generator[list[socket]]:
    """The sockets to serve on; where nobody has to say who they are, this machine's alone unless told otherwise."""
    with ExitStack() as closing:
        try:
            if not settings.authenticates and settings.auth_mode is None and not server.is_loopback(host):
                raise UsageError(
                    f"anyone who can reach {host} could read and change every token: set AUTH_JWKS_URL, AUTH_JWKS_FILE "
                    "or AUTH_SECRET to require access tokens, or AUTH_MODE=disabled if that is what you want"
                )
            listeners = closing.enter_context(server.listening(host, port, workers))
        except OSError as error:
            raise CommandError(
                f"cannot listen on port {port} of {host}: {error.strerror}; try another --host or --port"
            ) from None
        yield listeners


@contextmanager
def adding_up_metrics(workers: int) -> Generator[None]:
    """For several workers, a folder in which they add up their metrics; the library looks for it when imported."""
    if workers == 1:
        yield
        return
    in_memory = Path("/dev/shm")  # noqa: S108 - there also where every disk is read-only
    parent = in_memory if os.access(in_memory, os.W_OK) else None
    with TemporaryDirectory(prefix="gateway-tokens-metrics-", dir=parent) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def announce(settings: Settings, host: str, port: int) -> None:
    """Tell a newcomer where to look, what to paste, and what is switched off."""
    address = ip_address(host)
    shown = "localhost" if address.is_unspecified else f"[{host}]" if address.version == 6 else host  # noqa: PLR2004
    base = f"http://{shown}:{port}"
    url = f"{base}/graphql"
    query = "{ customerGatewayTokens(first: 3) { nodes { userId gateway gatewayCustomerId isActive } } }"
    body = json.dumps({"query": query}, separators=(",", ":"))
    if settings.authenticates:
        print(f"Serving {url} to callers with an access token. Press Ctrl-C to stop.", flush=True)
        if settings.auth_secret and not settings.introspects:
            print(
                "\nGraphiQL is off. To turn it on, with an access token for each role, set INTROSPECTION=true.",
                flush=True,
            )
        elif settings.auth_secret and address.is_loopback and sys.stdout.isatty():
            roles = _token_of_each_role(settings, settings.auth_secret)
            print(f"\nGraphiQL, with an access token for each role, valid for eight hours:\n{url}#{roles}", flush=True)
        return
    print(
        f"""Serving {url} - press Ctrl-C to stop.

In a browser:  {url}
A query:       {query}
In a shell:    curl -s {url} -H 'Content-Type: application/json' -d '{body}'
Health:        {base}/readyz and {base}/metrics

Authentication is off, for development: anyone who can reach this address can read and change every token. To require
access tokens, set AUTH_JWKS_URL or AUTH_SECRET. docs/configuration.md lists all settings.""",
        flush=True,
    )


def _token_of_each_role(settings: Settings, secret: SecretStr) -> str:
    """Access tokens for GraphiQL to pick from. They go behind an address's #, which a browser sends to nobody."""
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
