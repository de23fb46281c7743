"""Every environment variable: typed, defaulted and checked once. docs/configuration.md explains them."""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from graphql_api.domain.addresses import is_address, is_loopback, is_private
from graphql_api.domain.errors import InputError
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.token import Action
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


_MIN_SECRET_BYTES = 16  # of a secret that an operator chooses: fewer can be guessed
_ORIGIN = re.compile(r"https?://[^/?#@\s]+")
_OTHER_DATABASE_URL = re.compile("(POSTGRES|POSTGRESQL|PG|DB|DATABASE|SQLALCHEMY_DATABASE)_?(URL|URI|DSN)")
_SIMILAR = 0.9  # how alike an unknown variable's name must be to one of ours to count as a slip


def _invalid_postgresql(address: str) -> str | None:
    """What keeps it from being an address of PostgreSQL, without quoting it: it may hold a password."""
    try:
        parts = urlsplit(address)
        ports = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        return "a port is not a number from 1 to 65535"
    if parts.scheme not in {"postgresql", "postgres"}:
        return f"it begins with {parts.scheme}://" if parts.scheme else "it does not begin with postgresql://"
    return "a port is 0" if 0 in ports else None


def _invalid_http(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "the port is not a number from 1 to 65535"
    if parts.scheme not in {"http", "https"}:
        return "it does not begin with http:// or https://"
    if not parts.hostname:
        return "it names no host"
    return "the port is 0" if port == 0 else None


def _invalid_origin(origin: str) -> str | None:
    if origin == "*" or _ORIGIN.fullmatch(origin):
        return None
    scheme, separator, rest = origin.partition("://")
    if not separator or scheme not in {"http", "https"}:
        return "does not begin with http:// or https://"
    if rest.endswith("/") and _ORIGIN.fullmatch(origin.rstrip("/")):
        return "ends with a slash"
    return "has more than a scheme, a host and a port"


_BETWEEN_ADDRESSES = re.compile(r"\s*,\s*(?=postgres(?:ql)?://)")


def _addresses(value: object) -> object:
    """Several whole addresses; a comma may also stand between the hosts of one."""
    if isinstance(value, str):
        return tuple(_BETWEEN_ADDRESSES.split(value.strip())) if value.strip() else ()
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Lower = BeforeValidator(_lower)
Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_addresses)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


_SUBJECT = re.compile(r"/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
_MAX_ADDRESS_LENGTH = 2000
_EVENT_SECRET_BYTES = range(24, 65)  # Standard Webhooks
_ACTIONS = tuple(action.value for action in Action)


def _is_stream(address: str) -> bool:
    return address.startswith(("nats://", "tls://"))


def _is_host(name: str) -> bool:
    """Whether this can be a name in the domain name system, or is an address as it is written in one way only."""
    try:
        name.encode("idna")
        if ":" in name or re.fullmatch(r"[0-9.]+", name):
            return is_address(name)
    except ValueError:
        return False
    return bool(name)


def _unusable(address: str) -> str | None:
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        return "it holds a user or a password"
    is_usable = len(address) <= _MAX_ADDRESS_LENGTH and address.isprintable() and _is_host(parts.hostname or "")
    return None if is_usable else "no program can connect to it"


def _invalid_endpoint(address: str, *, allow_private: bool) -> str | None:
    """What keeps entries from being sent there. Whether a name has a private address is seen when it is sent."""
    is_stream = _is_stream(address)
    if wrong := _invalid_http(f"http{address[address.index(':') :]}" if is_stream else address) or _unusable(address):
        return wrong
    parts = urlsplit(address)
    host = parts.hostname or ""
    if is_stream and (not _SUBJECT.fullmatch(parts.path) or parts.query or parts.fragment):
        return "it does not end with a subject, as nats://nats.example/tokens does"
    if allow_private:
        return None
    is_local = is_loopback(host) if is_address(host) else host == "localhost" or host.endswith(".localhost")
    if is_address(host) and is_private(host):
        return "its address is private (EVENT_WEBHOOK_ALLOW_PRIVATE allows that)"
    if parts.scheme in {"http", "nats"} and not is_local:
        return f"it begins with {parts.scheme}:// (EVENT_WEBHOOK_ALLOW_PRIVATE allows that)"
    return None


def _event_key(secret: str) -> bytes | None:
    """The key in `whsec_…`; None if it is none."""
    try:
        text = secret.removeprefix("whsec_")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None
    return key if secret.startswith("whsec_") and len(key) in _EVENT_SECRET_BYTES else None


_STRIPE_SECRET = re.compile(r"whsec_[!-~]{8,}")
_ADYEN_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_STRIPE_API_KEY = re.compile(r"(?:rk|sk)_(live|test)_[0-9A-Za-z_]{5,}")
_MOLLIE_API_KEY = re.compile(r"(live|test)_[0-9A-Za-z]{5,}")


def _of_gateway(pair: str, what: str) -> str:
    """`" stripe : x "` as `"STRIPE:x"`; `what` the variable takes."""
    gateway, _, rest = pair.partition(":")
    try:
        name = gateway_name(gateway)
    except InputError as refused:
        raise ValueError(f"takes {what}. {refused}") from None
    if not rest.strip():
        raise ValueError(f"takes {what}; {name} has none")
    return f"{name}:{rest.strip()}"


def _signing_secrets(
    given: tuple[SecretStr, ...], gateway: str, form: re.Pattern[str], what: str
) -> tuple[SecretStr, ...]:
    """Secrets, each with its gateway before it. Nothing of a secret is said."""
    pairs: list[str] = []
    for secret in given:
        text = secret.get_secret_value()
        pairs.append(_of_gateway(text if ":" in text else f"{gateway}:{text}", f"{what}, or gateway:secret"))
    secrets = [pair.partition(":")[2] for pair in pairs]
    if not all(map(form.fullmatch, secrets)):
        raise ValueError(f"takes {what}; one is not of that form or too short")
    if len(set(secrets)) < len(secrets):
        raise ValueError(f"takes {what}, each once; one is there twice")
    return tuple(map(SecretStr, pairs))


def _api_keys(
    given: tuple[SecretStr, ...], gateway: str, form: re.Pattern[str], what: str, info: ValidationInfo
) -> tuple[SecretStr, ...]:
    """Keys of gateways' APIs, each with its gateway before it, and of its mode."""
    pairs = _signing_secrets(given, gateway, form, what)
    names: set[str] = set()
    for pair in pairs:
        name, _, key = pair.get_secret_value().partition(":")
        if name in names:
            raise ValueError(f"takes one key for each gateway; {name} has two")
        names.add(name)
        mode = form.fullmatch(key)
        if mode is not None and (mode[1] == "test") is not is_test_gateway(name, info.data.get("test_gateways", ())):
            expected = "live" if mode[1] == "test" else "test"
            raise ValueError(
                f"takes {what}; that of {name} is for {mode[1]} mode, and {name} is a gateway in {expected} mode. "
                "Gateways in test mode end in _TEST or are in TEST_GATEWAYS"
            )
    return pairs


def is_test_gateway(name: str, test_gateways: Sequence[str]) -> bool:
    """Whether a gateway is in test mode, by its name or by what TEST_GATEWAYS lists."""
    return name.endswith("_TEST") or name in test_gateways


def _said(problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    got, limits = repr(problem["input"])[:60], problem.get("ctx", {})
    match problem["type"]:
        case "bool_parsing":
            message = f"takes true or false, not {got}"
        case "int_parsing" | "int_from_float":
            message = f"takes a whole number, not {got}"
        case "float_parsing":
            message = f"takes a number of seconds, not {got}"
        case "literal_error":
            message = f"takes {limits['expected']}, not {got}"
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            bound = {"gt": "more than {}", "ge": "at least {}", "le": "at most {}"}
            message = f"takes {next(bound[key].format(limits[key]) for key in bound if key in limits)}, not {got}"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
    return f"{str(problem['loc'][0]).upper()}: {message}"


_ABOUT_KEYS = ("auth_mode", "auth_jwks_url", "auth_jwks_file", "auth_secret")
_ABOUT_WEBHOOKS = ("event_webhooks", "event_webhook_secrets")


class Settings(BaseSettings):
    """What the environment says. A field `x_y` is the variable `X_Y`; an empty variable counts as not set."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    database_url: str | None = None
    database_replica_url: Addresses = ()
    replica_max_lag: Seconds = 5
    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    database_timeout: Seconds = 5
    database_connect_timeout: Seconds = 1
    database_prepared_statements: bool = True
    data_dir: Path = Path(".data")

    auth_mode: Annotated[Literal["jwt", "disabled"] | None, Lower] = None
    auth_jwks_url: str | None = None
    auth_jwks_file: Path | None = None
    auth_secret: SecretStr | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    router_secret: Secrets = ()
    introspection: bool | None = None
    cors_origins: Names = ()
    cors_headers: Names = ()
    allowed_hosts: Names = ()

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
    max_batch_requests: Annotated[int, Field(ge=0, le=2**31 - 1)] = 10
    compression: bool = True
    trusted_documents: Path | None = None
    engine: Annotated[Literal["compiled", "graphql-core"], Lower] = "compiled"
    request_timeout: Seconds = 10
    max_concurrent_requests: Count = 64
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 5

    stripe_webhook_secret: Secrets = ()
    stripe_accounts: Names = ()
    adyen_webhook_hmac_key: Secrets = ()
    adyen_merchant_accounts: Names = ()
    test_gateways: Names = ()
    stripe_api_key: Secrets = ()
    stripe_api_base: str | None = None
    mollie_api_key: Secrets = ()
    mollie_api_base: str | None = None
    event_webhook_allow_private: bool = False
    event_webhook_actions: Names = ()
    event_webhooks: Names = ()
    event_webhook_secrets: Annotated[Secrets, Field(validate_default=True)] = ()
    max_unknown_customers: Count = 1_000_000
    otel_exporter_otlp_endpoint: str | None = None
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = "info"
    log_format: Annotated[Literal["console", "json"] | None, Lower] = None

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the process's environment.

        Raises:
            ConfigurationError: variables have invalid values; it names all of them.
        """
        settings, problems = cls.inspect()
        if problems:
            raise ConfigurationError(*problems)
        return settings

    @classmethod
    def inspect(cls) -> tuple[Self, list[str]]:
        """The settings, with the default in place of each invalid value, and what is wrong with those."""
        problems: list[str] = []
        defaults: dict[str, Any] = {}
        while True:
            try:
                return cls(**defaults), problems
            except ValidationError as error:
                wrong = error.errors(include_url=False)
                problems += map(_said, wrong)
                for problem in wrong:
                    name = str(problem["loc"][0]) if problem["loc"] else "auth_mode"
                    for each in next((names for names in (_ABOUT_KEYS, _ABOUT_WEBHOOKS) if name in names), (name,)):
                        defaults[each] = cls.model_fields[each].default

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
        if value is not None and (wrong := _invalid_postgresql(value)):
            raise ValueError(f"takes a URL such as postgresql://user:password@host:5432/database; {wrong}")
        return value

    @field_validator("database_replica_url")
    @classmethod
    def _replicas(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := next(filter(None, map(_invalid_postgresql, value)), None):
            example = "postgresql://user:password@host1:5432,host2:5432/database"
            raise ValueError(f"takes URLs such as {example}; of one, {wrong}")
        return value

    @field_validator("auth_jwks_url", "otel_exporter_otlp_endpoint")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and (wrong := _invalid_http(value)):
            raise ValueError(f"takes a URL such as https://host/path; {wrong}")
        return value

    @field_validator("auth_jwks_file", "trusted_documents")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_file() and os.access(value, os.R_OK)):
            wrong = "cannot be read" if value.is_file() else "is not a file" if value.exists() else "does not exist"
            raise ValueError(f"takes the path of a readable file; {value} {wrong}")
        return value

    @field_validator("auth_secret")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:  # noqa: PLR2004 - RFC 7518, 3.2
            raise ValueError(
                f"takes at least 32 bytes, not {len(value.get_secret_value().encode())}; "
                "generate one with `openssl rand -hex 32`"
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if wrong := _invalid_origin(origin):
                raise ValueError(f"takes origins such as https://shop.example, or * for any; {origin!r} {wrong}")
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
            if re.search(r"[\s;]", form):
                raise ValueError(f"takes comma-separated forms without white space; that of {name} is {form!r}")
            if name in forms:
                raise ValueError(f"takes one form for each gateway; {name} has two")
            forms[name] = form
        return tuple(f"{name}:{form}" for name, form in forms.items())

    @field_validator("gateways", "numeric_customer_ids", "test_gateways")
    @classmethod
    def _gateways(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(gateway_name(name) for name in value)
        except InputError as refused:
            raise ValueError(f"takes comma-separated gateway names, such as STRIPE,PAYPAL. {refused}") from None

    @field_validator("stripe_webhook_secret")
    @classmethod
    def _stripe_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        return _signing_secrets(
            value, "STRIPE", _STRIPE_SECRET, "the signing secrets of webhook endpoints, which begin with whsec_"
        )

    @field_validator("adyen_webhook_hmac_key")
    @classmethod
    def _adyen_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        return _signing_secrets(
            value, "ADYEN", _ADYEN_KEY, "the HMAC keys of webhooks, which are 64 hexadecimal digits"
        )

    @field_validator("stripe_api_key")
    @classmethod
    def _stripe_api_keys(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        what = "restricted API keys, which begin with rk_live_ or rk_test_"
        return _api_keys(value, "STRIPE", _STRIPE_API_KEY, what, info)

    @field_validator("mollie_api_key")
    @classmethod
    def _mollie_api_keys(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        return _api_keys(value, "MOLLIE", _MOLLIE_API_KEY, "API keys, which begin with live_ or test_", info)

    @field_validator("stripe_api_base", "mollie_api_base")
    @classmethod
    def _api_base(cls, value: str | None) -> str | None:
        if value is None:
            return value
        wrong = _invalid_http(value)
        if wrong is None and _is_open_to_tampering(value):
            wrong = "http:// would show the key to anyone on the network, so it is for this machine only"
        if wrong:
            raise ValueError(f"takes a URL such as https://host; {wrong}")
        return value.rstrip("/")

    @field_validator("stripe_accounts")
    @classmethod
    def _stripe_accounts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_of_gateway(pair, "accounts with their gateways, such as STRIPE:acct_1") for pair in value)

    @field_validator("event_webhook_actions")
    @classmethod
    def _event_actions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        actions = tuple(dict.fromkeys(name.upper() for name in value))
        for name in actions:
            if name not in _ACTIONS:
                raise ValueError(f"takes names of actions: {', '.join(_ACTIONS)}; {name!r} is none")
        return actions

    @field_validator("event_webhooks")
    @classmethod
    def _event_webhooks(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        names: set[str] = set()
        for pair in value:
            name, _, address = pair.partition("=")
            name = name.strip()
            if not _ENDPOINT.fullmatch(name):
                raise ValueError("takes endpoints with their names, such as billing=https://billing.example/events")
            allow_private = bool(info.data.get("event_webhook_allow_private"))
            if wrong := _invalid_endpoint(address.strip(), allow_private=allow_private):
                raise ValueError(f"takes endpoints such as billing=https://billing.example/events; of {name}, {wrong}")
            if name in names:
                raise ValueError(f"takes each name once; {name} is there twice")
            names.add(name)
        return value

    @field_validator("event_webhook_secrets")
    @classmethod
    def _event_secrets(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        pairs = [secret.get_secret_value().partition(":") for secret in value]
        endpoints = [pair.partition("=") for pair in info.data.get("event_webhooks", ())]
        streams = {name.strip() for name, _, address in endpoints if _is_stream(address.strip())}
        form = "takes a secret for each endpoint, such as billing:whsec_… with the Base64 of 24 to 64 bytes"
        given = [name.strip() for name, _, _ in pairs]
        if not all(
            separator and (_event_key(secret.strip()) or (name.strip() in streams and secret.strip()))
            for name, separator, secret in pairs
        ):
            raise ValueError(f"{form}; one is not of that form")
        if twice := [name for name in streams if given.count(name) > 1]:
            raise ValueError(f"takes one token, or user:password, for a stream; {twice[0]} has several")
        if "event_webhooks" in info.data:
            names = [name.strip() for name, _, _ in endpoints]
            if missing := [name for name in names if name not in given and name not in streams]:
                raise ValueError(f"{form}; {missing[0]} has none")
            if unknown := [name for name in given if name not in names]:
                raise ValueError(f"{form}; {unknown[0][:50]!r} is not in EVENT_WEBHOOKS")
        return value

    @field_validator("adyen_merchant_accounts")
    @classmethod
    def _merchant_accounts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_of_gateway(pair, "merchant accounts with their gateways, such as ADYEN:Shop") for pair in value)

    @field_validator(
        "stripe_webhook_secret",
        "adyen_webhook_hmac_key",
        "stripe_accounts",
        "adyen_merchant_accounts",
        "test_gateways",
        "customer_ids",
        "numeric_customer_ids",
        "stripe_api_key",
        "mollie_api_key",
    )
    @classmethod
    def _only_gateways_of_the_platform(cls, value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        allowed = info.data.get("gateways")
        for each in value:
            text: str = each.get_secret_value() if isinstance(each, SecretStr) else each
            gateway = text.partition(":")[0]
            if allowed and gateway not in allowed:
                raise ValueError(f"takes gateways of this platform; {gateway} is not in GATEWAYS")
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
    def event_endpoints(self) -> list[tuple[str, str, tuple[bytes, ...], str]]:
        """The endpoints of `deliver`: name, URL, and the keys that sign what is sent, or what a stream is told."""
        secrets: dict[str, list[str]] = {}
        for secret in self.event_webhook_secrets:
            name, _, text = secret.get_secret_value().partition(":")
            secrets.setdefault(name.strip(), []).append(text.strip())
        found: list[tuple[str, str, tuple[bytes, ...], str]] = []
        for pair in self.event_webhooks:
            name, _, url = (part.strip() for part in pair.partition("="))
            given = secrets.get(name, [])
            keys = () if _is_stream(url) else tuple(_event_key(each) or b"" for each in given)
            found.append((name, url, keys, given[0] if given and _is_stream(url) else ""))
        return found

    @property
    def authenticates(self) -> bool:
        """Whether access tokens are required: by `AUTH_MODE`, or if it is not set, by whether there is a key."""
        if self.auth_mode is not None:
            return self.auth_mode == "jwt"
        return any((self.auth_jwks_url, self.auth_jwks_file, self.auth_secret))

    @property
    def introspects(self) -> bool:
        """Whether introspection, GraphiQL and suggestions are on: by default, if authentication is off."""
        return not self.authenticates if self.introspection is None else self.introspection


def weaknesses(settings: Settings) -> list[str]:
    """What is valid and unsafe: each names a variable and says what to do."""
    found: list[str] = []
    named = {
        "ROUTER_SECRET": settings.router_secret,
        "STRIPE_WEBHOOK_SECRET": settings.stripe_webhook_secret,
        "ADYEN_WEBHOOK_HMAC_KEY": settings.adyen_webhook_hmac_key,
    }
    for name, secrets in named.items():
        if any(_is_guessable(secret.get_secret_value()) for secret in secrets):
            found.append(
                f"{name}: a secret has fewer than {_MIN_SECRET_BYTES} bytes and can be guessed; use a longer one"
            )
    if any("sk_live_" in key.get_secret_value() for key in settings.stripe_api_key):
        found.append("STRIPE_API_KEY: a secret key may do everything at Stripe; use a restricted key, rk_live_…")
    if settings.auth_mode == "disabled":
        found += [
            f"{key.upper()}: has no effect, since AUTH_MODE=disabled accepts every request; unset one of the two"
            for key in _ABOUT_KEYS[1:]
            if getattr(settings, key) is not None
        ]
    if not settings.authenticates and "*" in settings.cors_origins:
        found.append("CORS_ORIGINS: with *, any website that you visit can change tokens here; name the origins")
    if settings.authenticates and settings.auth_secret is None:
        if settings.auth_audience is None:
            found.append("AUTH_AUDIENCE: not set, so access tokens issued for other services are accepted; set it")
        if settings.auth_issuer is None:
            found.append("AUTH_ISSUER: not set, so access tokens of any issuer with these keys are accepted; set it")
    if settings.auth_jwks_url and _is_open_to_tampering(settings.auth_jwks_url):
        found.append("AUTH_JWKS_URL: http:// lets anyone on the network replace the keys; use https://")
    return found


def _is_guessable(secret: str) -> bool:
    return len(secret.rpartition(":")[2].encode()) < _MIN_SECRET_BYTES


def _is_open_to_tampering(address: str) -> bool:
    parts = urlsplit(address)
    host = parts.hostname or ""
    is_local = is_loopback(host) if is_address(host) else host == "localhost"
    return parts.scheme == "http" and not is_local


def slips(environment: Mapping[str, str]) -> list[str]:
    """Variables that are probably meant to be others: each is named with the one that it looks like."""
    ours = {name.upper() for name in Settings.model_fields}
    unset = [name for name in ours if not environment.get(name)]
    return [
        f"{name} is set, which this service does not read; did you mean {alike}?"
        for name in sorted(environment.keys() - ours)
        for alike in _meant(name, unset)
    ]


def _meant(name: str, unset: list[str]) -> list[str]:
    """Which of our variables, none of them set, this one is probably meant to be."""
    if "DATABASE_URL" in unset and _OTHER_DATABASE_URL.fullmatch(name):
        return ["DATABASE_URL"]
    transposed = {name[:at] + name[at : at + 2][::-1] + name[at + 2 :] for at in range(len(name) - 1)}
    return sorted(transposed.intersection(unset))[:1] or get_close_matches(name, unset, n=1, cutoff=_SIMILAR)
