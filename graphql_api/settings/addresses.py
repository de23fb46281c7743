"""Addresses: of databases, of HTTP servers, of websites. What is said of a wrong one never quotes a password."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from graphql_api.domain.addresses import is_address, is_loopback
from graphql_api.domain.cards import quoted
from graphql_api.settings.values import Names

_ORIGIN = re.compile(r"https?://[^/?#@\s]+")
_HOST = re.compile(r"[^/:@?#\[\]\s]+|\[[0-9A-Fa-f:.]+\]")
_ESCAPES = "write %, @, :, /, ?, #, [ and ] in the password as %25, %40, %3A, %2F, %3F, %23, %5B and %5D"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_BETWEEN_ADDRESSES = re.compile(r"\s*,\s*(?=postgres(?:ql)?://)")


def problem_of_http(address: str) -> str | None:
    """What keeps it from being the address of an HTTP server, as a predicate; None if nothing does."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "has a port that is not a number from 1 to 65535"
    if parts.scheme not in {"http", "https"}:
        return "does not begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if " " in address or not address.isprintable():
        return "contains whitespace or an invisible character"
    return "has port 0" if port == 0 else None


def is_unprotected(address: str) -> bool:
    """Whether anyone on the network can read and change what is sent there: by http://, to another machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    return parts.scheme == "http" and not (is_loopback(host) if is_address(host) else host == "localhost")


def _beginning_of(address: str) -> str:
    """With what it begins in place of `postgresql://`."""
    if address.startswith(("'", '"')):
        return "it begins with a quotation mark: remove the quotation marks"
    if address.startswith("jdbc:"):
        return "it begins with jdbc: remove that"
    return (
        f"it begins with {urlsplit(address).scheme}://" if "://" in address else "it does not begin with postgresql://"
    )


def _problem_of_postgres(address: str) -> str | None:
    """What keeps it from being the address of a database. It quotes nothing that may belong to a password."""
    try:
        parts = urlsplit(address)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        ports = [urlsplit(f"//{host}").port for host in hosts]
    except ValueError:
        return _ESCAPES if _is_split_wrong(address) else "a port is not a number from 1 to 65535"
    if parts.scheme not in {"postgresql", "postgres"}:
        return _beginning_of(address)
    if _is_split_wrong(address):
        return _ESCAPES
    if address != address.strip() or re.search(r"\s", address.partition("?")[0]):
        return "it contains whitespace, which is %20 in a name or a password"
    if any(host.startswith(":") for host in hosts):
        return "a port has no host before it"
    return "a port is 0" if 0 in ports else _problem_of_tls(parse_qs(parts.query))


def _is_split_wrong(address: str) -> bool:
    """Whether an `@` is not the end of the user and the password, which are then not what they were meant to be."""
    rest = address.partition("://")[2]
    return "#" in rest or rest.count("@") > 1 or re.search(r"[/?\[\]].*@", rest, re.DOTALL) is not None


def _problem_of_tls(parameters: Mapping[str, Sequence[str]]) -> str | None:
    if parameters.get("sslmode", ["prefer"])[-1] not in _SSL_MODES:
        return f"sslmode must be {', '.join(_SSL_MODES[:-1])} or {_SSL_MODES[-1]}"
    for name, file in ((name, parameters[name][-1]) for name in _FILES if name in parameters):
        if name == "sslrootcert" and file == "system":
            return "sslrootcert=system is not supported: name a file, such as /etc/ssl/certs/ca-certificates.crt"
        if not os.access(file, os.R_OK):
            return f"the file of {name} does not exist or cannot be read"
    return None


def _problem_of_origin(origin: str) -> str | None:
    if origin == "*" or _ORIGIN.fullmatch(origin):
        return None
    scheme, separator, rest = origin.partition("://")
    if not separator or scheme not in {"http", "https"}:
        return "does not begin with http:// or https://"
    if rest.endswith("/") and _ORIGIN.fullmatch(origin.rstrip("/")):
        return "ends with a slash"
    return "has more than a scheme, a host and a port"


def _postgres(value: str) -> str:
    if wrong := _problem_of_postgres(value):
        raise ValueError(f"must be a URL such as postgresql://user:password@host:5432/database; {wrong}")
    return value


def _split(value: object) -> object:
    """Several whole addresses; a comma may also stand between the hosts of one."""
    if isinstance(value, str):
        return tuple(_BETWEEN_ADDRESSES.split(value.strip())) if value.strip() else ()
    return value


def _all_postgres(value: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := next(filter(None, map(_problem_of_postgres, value)), None):
        example = "postgresql://user:password@host1:5432,host2:5432/database"
        raise ValueError(f"must be URLs such as {example}; one is wrong: {wrong}")
    return value


def _http(value: str) -> str:
    if wrong := problem_of_http(value):
        raise ValueError(f"must be a URL such as https://host/path; it {wrong}")
    return value


def _api(value: str) -> str:
    wrong = problem_of_http(value)
    if wrong is None and is_unprotected(value):
        raise ValueError(
            "must be a URL such as https://host; http:// would show the key to anyone on the network, so it is for "
            "this machine only"
        )
    if wrong:
        raise ValueError(f"must be a URL such as https://host; it {wrong}")
    return value.rstrip("/")


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if wrong := _problem_of_origin(origin):
            raise ValueError(
                "must be a comma-separated list of origins such as https://shop.example, or *; "
                f"{quoted(origin)} {wrong}"
            )
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not _HOST.fullmatch(host):
            raise ValueError(
                "must be a comma-separated list of hosts such as tokens.example, or *; "
                f"{quoted(host)} has more than a host"
            )
    return value


PostgresURL = Annotated[str, AfterValidator(_postgres)]
PostgresURLs = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_all_postgres)]
HTTPURL = Annotated[str, AfterValidator(_http)]
APIBase = Annotated[str, AfterValidator(_api)]
Origins = Annotated[Names, AfterValidator(_origins)]
Hosts = Annotated[Names, AfterValidator(_hosts)]
