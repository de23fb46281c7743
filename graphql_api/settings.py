"""Every environment variable: typed, defaulted and checked once. docs/configuration.md explains them."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from graphql_api.domain.errors import InputError
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.values import gateway as gateway_name


class ConfigurationError(Exception):
    """Environment variables are set wrong. The message is one line that names the first one and what it takes."""

    def __init__(self, *problems: str) -> None:
        super().__init__(problems[0])
        self.problems = problems


def _listed(value: object) -> object:
    """`"a, b"` → `("a", "b")`; where commas part nothing, none may be what was meant last: it could open a door."""
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise ValueError("takes comma-separated values; unset it for none")
    return parts


# What pydantic says of these does not say what would be right.
_TAKES = {"bool_parsing": "takes true or false"}
_ORIGIN = re.compile(r"\*|https?://[^/?#@\s]+")


def _is_postgresql(address: str) -> bool:
    """Whether it is of PostgreSQL's scheme, and a port can be one; there may be several hosts."""
    try:
        parts = urlsplit(address)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        return parts.scheme in {"postgresql", "postgres"} and all(urlsplit(f"//{host}").port != 0 for host in hosts)
    except ValueError:
        return False


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_BETWEEN_ADDRESSES = re.compile(r"\s*,\s*(?=postgres(?:ql)?://)")


def _addresses(value: object) -> object:
    """Several whole addresses; a comma may also stand between the hosts of one."""
    if isinstance(value, str):
        return tuple(_BETWEEN_ADDRESSES.split(value.strip())) if value.strip() else ()
    return value


Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_addresses)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


def _said(problem: ErrorDetails) -> str:
    message = _TAKES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return f"{str(problem['loc'][0]).upper()}: {message}" if problem["loc"] else message


class Settings(BaseSettings):
    """What the environment says. A field `x_y` is the variable `X_Y`; an empty variable counts as not set."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    database_url: str | None = None
    database_replica_url: Addresses = ()
    replica_max_lag: Seconds = 5
    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    database_timeout: Seconds = 5
    database_prepared_statements: bool = True
    data_dir: Path = Path(".data")

    auth_mode: Literal["jwt", "disabled"] | None = None
    auth_jwks_url: str | None = None
    auth_jwks_file: Path | None = None
    auth_secret: SecretStr | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    router_secret: Secrets = ()
    introspection: bool | None = None
    cors_origins: Names = ()

    gateways: Names = ()
    customer_ids: Names = ()
    numeric_customer_ids: Names = ()
    max_body_bytes: Count = 1024 * 1024
    max_depth: Count = 12
    max_aliases: Count = 30
    max_tokens: Count = 2000
    max_representations: Count = 2000
    max_operations: Count = 10
    max_fragments: Count = 50
    max_directives: Count = 50
    max_variables: Count = 200
    max_arguments: Count = 100
    max_selections: Count = 1000
    max_introspection_depth: Count = 20
    max_introspection_lists: Count = 15
    max_root_fields: Count = 50
    max_repeated_fields: Count = 100
    max_cost: Count = 100_000
    trusted_documents: Path | None = None
    engine: Literal["compiled", "graphql-core"] = "compiled"
    request_timeout: Seconds = 10
    max_concurrent_requests: Count = 64
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 5

    stripe_webhook_secret: Secrets = ()
    adyen_webhook_hmac_key: Secrets = ()
    otel_exporter_otlp_endpoint: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] | None = None

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the process's environment.

        Raises:
            ConfigurationError: variables are set wrong.
        """
        try:
            return cls()
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise ConfigurationError(*(_said(problem) for problem in problems)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the environment counts: no `.env` file of the working directory is read behind the operator's back."""
        return init_settings, env_settings

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is not None and not _is_postgresql(value):
            raise ValueError("takes a URL such as postgresql://user:password@host:5432/database")
        return value

    @field_validator("database_replica_url")
    @classmethod
    def _replicas(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_is_postgresql, value)):
            raise ValueError("takes URLs such as postgresql://user:password@host1:5432,host2:5432/database")
        return value

    @field_validator("auth_jwks_url", "otel_exporter_otlp_endpoint")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not _is_http(value):
            raise ValueError("takes a URL that starts with http:// or https:// and has a host")
        return value

    @field_validator("auth_jwks_file", "trusted_documents")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_file() and os.access(value, os.R_OK)):
            raise ValueError("takes the path of a readable file")
        return value

    @field_validator("auth_secret")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:  # noqa: PLR2004 - RFC 7518, 3.2
            raise ValueError("takes at least 32 bytes; generate one with `openssl rand -hex 32`")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("takes comma-separated origins, such as https://shop.example, or * for any")
        return value

    @field_validator("customer_ids")
    @classmethod
    def _forms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        forms: dict[str, str] = {}
        for pair in value:
            name, _, form = pair.partition(":")
            try:
                name = gateway_name(name)
            except InputError as refused:
                raise ValueError(f"takes forms of customer ids, such as STRIPE:cus_*,MOLLIE:cst_*. {refused}") from None
            if not form:
                raise ValueError(f"takes forms of customer ids, such as STRIPE:cus_*; {name} has none")
            if name in forms:
                raise ValueError(f"takes one form for each gateway; {name} has two")
            forms[name] = form
        return tuple(f"{name}:{form}" for name, form in forms.items())

    @field_validator("gateways", "numeric_customer_ids")
    @classmethod
    def _gateways(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(gateway_name(name) for name in value)
        except InputError as refused:
            raise ValueError(f"takes comma-separated gateway names, such as STRIPE,PAYPAL. {refused}") from None

    @field_validator("stripe_webhook_secret", "adyen_webhook_hmac_key")
    @classmethod
    def _of_gateways(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            gateway, colon, its_secret = secret.get_secret_value().partition(":")
            if not colon:
                continue
            if not its_secret:  # anybody could sign with an empty one
                raise ValueError("takes secrets, or gateway:secret; one has no secret after its colon")
            try:
                gateway_name(gateway)
            except InputError as refused:
                raise ValueError(f"takes secrets, or gateway:secret. {refused}") from None
        return value

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> Self:
        keys = [name for name in ("auth_jwks_url", "auth_jwks_file", "auth_secret") if getattr(self, name) is not None]
        if len(keys) > 1:
            raise ValueError(f"{' and '.join(key.upper() for key in keys)}: set only one of them")
        if self.auth_mode == "jwt" and not keys:
            raise ValueError("AUTH_MODE: jwt needs a key: set AUTH_JWKS_URL, AUTH_JWKS_FILE or AUTH_SECRET")
        return self

    @property
    def rules_of_gateways(self) -> Gateways:
        """What is said of gateways: which are allowed, and what their customer ids look like."""
        forms = dict(pair.split(":", 1) for pair in self.customer_ids)
        return Gateways(frozenset(self.gateways), frozenset(self.numeric_customer_ids), forms)

    @property
    def authenticates(self) -> bool:
        """Whether access tokens are asked for: `AUTH_MODE`, or where that is not set, whether there is a key."""
        if self.auth_mode is not None:
            return self.auth_mode == "jwt"
        return any((self.auth_jwks_url, self.auth_jwks_file, self.auth_secret))

    @property
    def introspects(self) -> bool:
        """Whether introspection, GraphiQL and suggestions are on: `INTROSPECTION`, else where nobody authenticates."""
        return not self.authenticates if self.introspection is None else self.introspection
