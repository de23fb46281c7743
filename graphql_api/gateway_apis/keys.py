"""Which gateways can be asked: those with an API key in the settings, each with its API."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from pydantic import SecretStr

from graphql_api.gateway_apis.answers import GatewayAPI
from graphql_api.gateway_apis.mollie import Mollie
from graphql_api.gateway_apis.stripe import Stripe
from graphql_api.settings import ConfigurationError, Settings
from graphql_api.settings.gateways import is_test_gateway

_APIS: Final[Mapping[str, type[GatewayAPI]]] = {  # a setting `x_api_key` has the keys
    "stripe": Stripe,
    "mollie": Mollie,
}
_KEYS: Final = {"stripe": "rk_{mode}_…", "mollie": "{mode}_…"}  # as messages show them


class GatewayKey(NamedTuple):
    """A gateway's API, the key for it, and its base URL if it is not the API's own."""

    gateway: str
    api: GatewayAPI
    secret: SecretStr
    base_url: str | None


def gateway_keys(settings: Settings) -> Mapping[str, GatewayKey]:
    """Every gateway that can be asked, by its name.

    Raises:
        ConfigurationError: two keys are for one gateway, or it is not clear which of a gateway's accounts is meant.
    """
    found: dict[str, GatewayKey] = {}
    for name, api in _APIS.items():
        secrets: Sequence[SecretStr] = getattr(settings, f"{name}_api_key")
        for pair in secrets:
            gateway, _, secret = pair.get_secret_value().partition(":")
            if gateway in found:
                raise ConfigurationError(f"{gateway} has keys for {found[gateway].api.name} and another API")
            is_test = is_test_gateway(gateway, settings.test_gateways)
            asked = api(is_test=is_test, account=_account(settings, gateway))
            found[gateway] = GatewayKey(gateway, asked, SecretStr(secret), getattr(settings, f"{name}_api_base"))
    return found


def gateway_key(settings: Settings, gateway: str) -> GatewayKey:
    """The key for a gateway; raises as `gateway_keys` does, or if there is none."""
    keys = gateway_keys(settings)
    if gateway not in keys:
        known = f", only for {', '.join(sorted(keys))}" if keys else ""
        mode = "test" if is_test_gateway(gateway, settings.test_gateways) else "live"
        raise ConfigurationError(f"There is no API key for {gateway}{known}. {_advice(gateway, mode, keys)}")
    return keys[gateway]


def _advice(gateway: str, mode: str, known: Iterable[str]) -> str:
    """Which gateway is meant, or which variable to set for this one, by the API that its name begins with."""
    api = gateway.partition("_")[0].lower()
    if api in _APIS:
        key = _KEYS.get(api, "…").format(mode=mode)
        return f"Set {api.upper()}_API_KEY={key if gateway.lower() == api else f'{gateway}:{key}'}"
    if alike := get_close_matches(gateway, [*known, *map(str.upper, _APIS)], n=1):
        return f"Did you mean {alike[0]}?"
    *names, last = (each.name for each in _APIS.values())
    return (
        f"Only {', '.join(names)} and {last} have an API here; if {gateway} is the name of a Stripe account, "
        f"set STRIPE_API_KEY={gateway}:{_KEYS['stripe'].format(mode=mode)}"
    )


def _account(settings: Settings, gateway: str) -> str | None:
    named = (pair.split(":", 1) for pair in settings.stripe_accounts)
    accounts = sorted({account for of, account in named if of == gateway})
    if len(accounts) > 1:
        raise ConfigurationError(
            f"STRIPE_ACCOUNTS: {gateway} has {len(accounts)} accounts, and a customer can be asked for in one only; "
            "give each account a gateway of its own"
        )
    return accounts[0] if accounts else None
