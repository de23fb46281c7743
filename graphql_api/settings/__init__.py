"""Every environment variable: typed, defaulted and checked once. docs/configuration.md explains them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from graphql_api.domain.inputs import Gateways
from graphql_api.settings.addresses import HTTPURL, APIBase, Hosts, Origins, PostgresURL, PostgresURLs
from graphql_api.settings.endpoints import Actions, Webhooks, WebhookSecrets, endpoints
from graphql_api.settings.gateways import (
    AdyenAccounts,
    AdyenKeys,
    APIKeys,
    GatewayNames,
    IdPatterns,
    SomeGatewayNames,
    StripeAccounts,
    StripeSecrets,
)
from graphql_api.settings.values import (
    Count,
    HeaderNames,
    Lower,
    ReadableFile,
    Seconds,
    Secrets,
    SymmetricKey,
    expected,
)

KEYS = ("auth_jwks_url", "auth_jwks_file", "auth_secret")
# Variables that are checked together: if one is wrong, all of them count as not set.
_TOGETHER = (("auth_mode", *KEYS), ("event_webhooks", "event_webhook_secrets"))


class ConfigurationError(Exception):
    """Environment variables are set wrong. The message has a line for each: its name and what it must be."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """What the environment says. A field `x_y` is the variable `X_Y`; an empty variable counts as not set."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    database_url: PostgresURL | None = None
    database_replica_url: PostgresURLs = ()
    replica_max_lag: Seconds = 5
    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    database_timeout: Seconds = 5
    database_connect_timeout: Seconds = 1
    database_prepared_statements: bool = True
    data_dir: Path = Path(".data")

    auth_mode: Annotated[Literal["jwt", "disabled"] | None, Lower] = None
    auth_jwks_url: HTTPURL | None = None
    auth_jwks_file: ReadableFile | None = None
    auth_secret: SymmetricKey | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    router_secret: Secrets = ()
    introspection: bool | None = None
    cors_origins: Origins = ()
    cors_headers: HeaderNames = ()
    allowed_hosts: Hosts = ()

    gateways: GatewayNames = ()
    customer_ids: IdPatterns = ()
    numeric_customer_ids: SomeGatewayNames = ()
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
    max_introspection_lists: Count = 10
    max_root_fields: Count = 50
    max_repeated_fields: Count = 100
    max_cost: Count = 100_000
    max_batch_requests: Annotated[int, Field(ge=0, le=2**31 - 1)] = 10
    compression: bool = True
    trusted_documents: ReadableFile | None = None
    engine: Annotated[Literal["compiled", "graphql-core"], Lower] = "compiled"
    request_timeout: Seconds = 10
    max_concurrent_requests: Count = 64
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 5

    stripe_webhook_secret: StripeSecrets = ()
    stripe_accounts: StripeAccounts = ()
    adyen_webhook_hmac_key: AdyenKeys = ()
    adyen_merchant_accounts: AdyenAccounts = ()
    test_gateways: SomeGatewayNames = ()
    stripe_api_key: APIKeys = ()
    stripe_api_base: APIBase | None = None
    mollie_api_key: APIKeys = ()
    mollie_api_base: APIBase | None = None
    event_webhook_allow_private: bool = False
    event_webhook_actions: Actions = ()
    event_webhooks: Webhooks = ()
    event_webhook_secrets: WebhookSecrets = ()
    max_unknown_customers: Count = 1_000_000
    otel_exporter_otlp_endpoint: HTTPURL | None = None
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
                problems += map(_message, wrong)
                for problem in wrong:
                    name = str(problem["loc"][0]) if problem["loc"] else "auth_mode"
                    for each in next((names for names in _TOGETHER if name in names), (name,)):
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

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> Self:
        keys = [name for name in KEYS if getattr(self, name) is not None]
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
        """The endpoints of `deliver`: name, URL, and the keys that sign what is sent, or a stream's options."""
        return endpoints(self.event_webhooks, self.event_webhook_secrets)

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


def _message(problem: ErrorDetails) -> str:
    message = expected(problem, number="a number of seconds")
    return f"{str(problem['loc'][0]).upper()} {message}" if problem["loc"] else message
