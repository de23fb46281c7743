"""Webhook endpoints and streams to which the change feed is sent: their names, addresses and secrets."""

import base64
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from graphql_api.domain.addresses import is_address, is_loopback, is_private
from graphql_api.domain.cards import quoted
from graphql_api.domain.token import Action
from graphql_api.settings.addresses import problem_of_http
from graphql_api.settings.values import Names, Secrets

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
_SUBJECT = re.compile(r"/[A-Za-z0-9_:-]+(\.[A-Za-z0-9_:-]+)*")
_SCHEMES = ("https://", "http://", "nats://", "tls://")
_MAX_ADDRESS_LENGTH = 2000
_SECRET_BYTES = range(24, 65)  # Standard Webhooks
_ACTIONS = tuple(action.value for action in Action)


def endpoints(webhooks: Names, secrets: Secrets) -> list[tuple[str, str, tuple[bytes, ...], str]]:
    """The endpoints of `deliver`: name, URL, and the keys that sign what is sent, or a stream's options."""
    given: dict[str, list[str]] = {}
    for name, secret in map(_named_secret, secrets):
        given.setdefault(name, []).append(secret)
    found: list[tuple[str, str, tuple[bytes, ...], str]] = []
    for name, url in map(_named_address, webhooks):
        own = given.get(name, [])
        keys = () if _is_stream(url) else tuple(_signing_key(each) or b"" for each in own)
        found.append((name, url, keys, own[0] if own and _is_stream(url) else ""))
    return found


def _named_address(pair: str) -> tuple[str, str]:
    name, _, address = pair.partition("=")
    return name.strip(), address.strip()


def _named_secret(pair: SecretStr) -> tuple[str, str]:
    name, _, secret = pair.get_secret_value().partition(":")
    return name.strip(), secret.strip()


def _is_stream(address: str) -> bool:
    return address.startswith(("nats://", "tls://"))


def _signing_key(secret: str) -> bytes | None:
    """The key in `whsec_…`; None if it is none."""
    try:
        text = secret.removeprefix("whsec_")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None
    return key if secret.startswith("whsec_") and len(key) in _SECRET_BYTES else None


def _is_host(name: str) -> bool:
    """Whether this can be a name in the domain name system, or is an address as it is written in one way only.

    Names in other scripts are written in ASCII, `xn--…`: libraries disagree on which others there are.
    """
    try:
        name.encode("ascii").decode().encode("idna")
        if ":" in name or re.fullmatch(r"[0-9.]+", name):
            return is_address(name)
    except ValueError:
        return False
    return bool(name)


def _unusable(address: str) -> str | None:
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        return "holds a user or a password"
    is_usable = len(address) <= _MAX_ADDRESS_LENGTH and _is_host(parts.hostname or "")
    return None if is_usable else "is not one that a program can connect to"


def _other_scheme(address: str) -> str | None:
    if address.lower().startswith(_SCHEMES):
        return None
    return f"does not begin with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}"


def _problem_of_endpoint(address: str, *, allow_private: bool) -> str | None:
    """What keeps entries from being sent there, as a predicate. Only sending shows if a name has a private address."""
    is_stream = _is_stream(address)
    as_http = f"http{address[address.index(':') :]}" if is_stream else address
    if wrong := _other_scheme(address) or problem_of_http(as_http) or _unusable(address):
        return wrong
    parts = urlsplit(address)
    host = parts.hostname or ""
    if is_stream and (not _SUBJECT.fullmatch(parts.path) or parts.query or parts.fragment):
        return "does not end with a subject, as nats://nats.example/tokens does"
    if allow_private:
        return None
    if is_address(host) and is_private(host):
        return "is private (EVENT_WEBHOOK_ALLOW_PRIVATE allows that)"
    is_local = is_loopback(host) if is_address(host) else host == "localhost" or host.endswith(".localhost")
    if parts.scheme in {"http", "nats"} and not is_local:
        return f"begins with {parts.scheme}:// (EVENT_WEBHOOK_ALLOW_PRIVATE allows that)"
    return None


def _webhooks(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    names: set[str] = set()
    allow_private = bool(info.data.get("event_webhook_allow_private"))
    for number, (name, address) in enumerate(map(_named_address, value), 1):
        if not _NAME.fullmatch(name):
            form = "must be named endpoints, such as billing=https://billing.example/events"
            raise ValueError(f"{form}; endpoint {number} has no name (of letters, digits, _ and -)")
        if wrong := _problem_of_endpoint(address, allow_private=allow_private):
            raise ValueError(
                f"must be endpoints such as billing=https://billing.example/events; the address of {name} {wrong}"
            )
        if name in names:
            raise ValueError(f"must have each name once; {name} is there twice")
        names.add(name)
    return value


def _secrets(value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
    pairs = list(map(_named_secret, value))
    known = [_named_address(pair) for pair in info.data.get("event_webhooks", ())]
    streams = {name for name, address in known if _is_stream(address)}
    form = "must have a secret for each endpoint, such as billing:whsec_… with the Base64 of 24 to 64 bytes"
    for number, (name, secret) in enumerate(pairs, 1):
        if not (_signing_key(secret) or (name in streams and secret)):
            of = f", of {name}," if name in dict(known) else ""
            raise ValueError(f"{form}; secret {number}{of} has another form or length")
    given = [name for name, _ in pairs]
    if twice := [name for name in streams if given.count(name) > 1]:
        raise ValueError(f"must have one token, or user:password, for a stream; {twice[0]} has several")
    if "event_webhooks" in info.data:
        if missing := [name for name, _ in known if name not in given and name not in streams]:
            raise ValueError(f"{form}; {missing[0]} has none")
        if unknown := [name for name in given if name not in dict(known)]:
            raise ValueError(f"{form}; {quoted(unknown[0])} is not in EVENT_WEBHOOKS")
    return value


def _actions(value: tuple[str, ...]) -> tuple[str, ...]:
    actions = tuple(dict.fromkeys(name.upper() for name in value))
    for name in actions:
        if name not in _ACTIONS:
            raise ValueError(f"must be names of actions: {', '.join(_ACTIONS)}; {quoted(name)} is not one of them")
    return actions


Actions = Annotated[Names, AfterValidator(_actions)]
Webhooks = Annotated[Names, AfterValidator(_webhooks)]
WebhookSecrets = Annotated[Secrets, AfterValidator(_secrets), Field(validate_default=True)]
