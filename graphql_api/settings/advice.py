"""What an operator may not mean: settings that are valid but unsafe or useless, and misspelled names."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from urllib.parse import urlsplit

from graphql_api import DEFAULT_PORT
from graphql_api.settings import KEYS, Settings
from graphql_api.settings.addresses import is_unprotected

_MIN_SECRET_BYTES = 16  # of a secret that an operator chooses: fewer can be guessed
_OTHER_DATABASE_URL = re.compile("(POSTGRES|POSTGRESQL|PG|DB|DATABASE|SQLALCHEMY_DATABASE)_?(URL|URI|DSN)")
_GRPC_PORT = 4317  # of OTLP
_SIMILAR = 0.9  # how alike an unknown variable's name must be to one of ours to count as a slip


def weaknesses(settings: Settings) -> list[str]:
    """What is valid and unsafe, or of no use: each names a variable and says what to do."""
    found: list[str] = []
    named = {
        "ROUTER_SECRET": settings.router_secret,
        "STRIPE_WEBHOOK_SECRET": settings.stripe_webhook_secret,
        "ADYEN_WEBHOOK_HMAC_KEY": settings.adyen_webhook_hmac_key,
    }
    for name, secrets in named.items():
        found += [
            f"{name}: secret {number} is shorter than {_MIN_SECRET_BYTES} bytes and can be guessed; use a longer one"
            for number, secret in enumerate(secrets, 1)
            if _is_guessable(secret.get_secret_value())
        ]
    if any("sk_live_" in key.get_secret_value() for key in settings.stripe_api_key):
        found.append("STRIPE_API_KEY: a secret key may do everything at Stripe; use a restricted key, rk_live_…")
    if settings.auth_mode == "disabled":
        found += [
            f"{key.upper()}: has no effect, since AUTH_MODE=disabled accepts every request; unset one of the two"
            for key in KEYS
            if getattr(settings, key) is not None
        ]
    return [*found, *_unsafe_access(settings), *_useless(settings)]


def _unsafe_access(settings: Settings) -> Iterator[str]:
    if not settings.authenticates and "*" in settings.cors_origins:
        yield "CORS_ORIGINS: with *, any website that you visit can change tokens here; name the origins"
    if settings.authenticates and settings.auth_secret is None:
        if settings.auth_audience is None:
            yield "AUTH_AUDIENCE: not set, so access tokens issued for other services are accepted; set it"
        if settings.auth_issuer is None:
            yield "AUTH_ISSUER: not set, so access tokens of any issuer with these keys are accepted; set it"
    if settings.auth_jwks_url and is_unprotected(settings.auth_jwks_url):
        yield "AUTH_JWKS_URL: http:// lets anyone on the network replace the keys; use https://"


def notes(settings: Settings) -> Iterator[str]:
    """What may be meant as it is, and mostly is not in production."""
    if settings.authenticates and settings.auth_secret and not (settings.auth_issuer and settings.auth_audience):
        yield "AUTH_SECRET: is for development, without AUTH_ISSUER and AUTH_AUDIENCE; in production, set AUTH_JWKS_URL"
    if settings.authenticates and "*" in settings.cors_origins:
        yield "CORS_ORIGINS: with *, pages of any website can send requests with an access token; name the origins"
    if settings.metrics_port == DEFAULT_PORT:
        yield f"METRICS_PORT: {DEFAULT_PORT} is also the port of `serve`, unless you pass it another --port"


def _useless(settings: Settings) -> Iterator[str]:
    for gateway, form in settings.rules_of_gateways.id_patterns.items():
        if "*" not in form:
            yield f"CUSTOMER_IDS: {form} allows only this customer id at {gateway}; did you mean {form}*?"
    traces = settings.otel_exporter_otlp_endpoint
    if traces and urlsplit(traces).port == _GRPC_PORT:
        yield f"OTEL_EXPORTER_OTLP_ENDPOINT: port {_GRPC_PORT} is for gRPC, but traces are sent by HTTP; use port 4318"


def _is_guessable(secret: str) -> bool:
    return len(secret.rpartition(":")[2].encode()) < _MIN_SECRET_BYTES


def misspellings(environment: Mapping[str, str]) -> list[str]:
    """Variables that are probably meant to be others: each is named with the one that it looks like."""
    return [
        f"{name} is set, but the service has no such setting. Did you mean {alike}?"
        for name, alike in _misspellings(environment).items()
    ]


def is_misspelled(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether another variable was probably meant to be this one, which is not set."""
    return variable in _misspellings(environment).values()


def _misspellings(environment: Mapping[str, str]) -> dict[str, str]:
    ours = {name.upper() for name in Settings.model_fields}
    unset = [name for name in ours if not environment.get(name)]
    return {name: alike for name in sorted(environment.keys() - ours) for alike in _meant(name, unset)}


def _meant(name: str, unset: list[str]) -> list[str]:
    """Which of our variables, none of them set, this one is probably meant to be."""
    if "DATABASE_URL" in unset and _OTHER_DATABASE_URL.fullmatch(name):
        return ["DATABASE_URL"]
    transposed = {name[:at] + name[at : at + 2][::-1] + name[at + 2 :] for at in range(len(name) - 1)}
    return sorted(transposed.intersection(unset))[:1] or get_close_matches(name, unset, n=1, cutoff=_SIMILAR)
