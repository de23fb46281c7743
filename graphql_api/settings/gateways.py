"""What is said of gateways: their names, their customers' ids, their accounts, and secrets that they share with us."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr, ValidationInfo

from graphql_api.domain.errors import InputError
from graphql_api.domain.values import gateway as parse_gateway
from graphql_api.settings.values import Names, Secrets


def is_test_gateway(name: str, test_gateways: Sequence[str]) -> bool:
    """Whether a gateway is in test mode, by its name or by what TEST_GATEWAYS lists."""
    return name.endswith("_TEST") or name in test_gateways


def _named(pair: str, what: str, secret: int | None = None) -> str:
    """`" stripe : x "` as `"STRIPE:x"`; `what` the variable takes. No message quotes a secret, but its number."""
    gateway, colon, rest = pair.partition(":")
    try:
        name = parse_gateway(gateway)
    except InputError as refused:
        wrong = f"secret {secret} has no gateway name before its colon" if secret else refused
        raise ValueError(f"must contain {what}; {wrong}") from None
    if not rest.strip():
        if not colon and not secret:
            raise ValueError(f"must contain {what}; {gateway.strip()} has no gateway and colon before it")
        raise ValueError(f"must contain {what}; nothing follows {name}")
    return f"{name}:{rest.strip()}"


def _on_the_platform(value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
    """Refuse gateways that GATEWAYS does not list, if it lists any; that variable is read before."""
    allowed = info.data.get("gateways")
    for each in value:
        text: str = each.get_secret_value() if isinstance(each, SecretStr) else each
        gateway = text.partition(":")[0]
        if allowed and gateway not in allowed:
            raise ValueError(f"names {gateway}, which is not in GATEWAYS")
    return value


def _names(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(parse_gateway(name) for name in value)
    except InputError as refused:
        raise ValueError(f"must be comma-separated gateway names, such as STRIPE,PAYPAL; {refused}") from None


def _id_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    pairs = [_named(pair, "forms of customer ids, such as STRIPE:cus_*,MOLLIE:cst_*") for pair in value]
    names: set[str] = set()
    for pair in pairs:
        name, _, pattern = pair.partition(":")
        if re.search(r"[\s;]", pattern):
            raise ValueError(f"must be comma-separated forms without whitespace; that of {name} is {pattern!r}")
        if name in names:
            raise ValueError(f"must have one form for each gateway; {name} has two")
        names.add(name)
    return tuple(pairs)


def _accounts(what: str) -> AfterValidator:
    return AfterValidator(lambda value: tuple(_named(pair, what) for pair in value))


def _paired(given: tuple[SecretStr, ...], gateway: str, form: str, what: str) -> tuple[SecretStr, ...]:
    """Secrets of this form, each with its gateway before it, which is this one if none is. No message quotes one."""
    pairs: list[str] = []
    numbers: dict[str, int] = {}
    for number, each in enumerate(given, 1):
        text = each.get_secret_value()
        pair = _named(text if ":" in text else f"{gateway}:{text}", f"{what}, or gateway:secret", number)
        name, _, secret = pair.partition(":")
        if not re.fullmatch(form, secret):
            raise ValueError(f"must contain {what}; secret {number}, of {name}, has another form or is too short")
        if (first := numbers.setdefault(secret, number)) < number:
            raise ValueError(f"must contain {what}, each once; secrets {first} and {number} are the same")
        pairs.append(pair)
    return tuple(map(SecretStr, pairs))


def _secrets(gateway: str, form: str, what: str) -> AfterValidator:
    return AfterValidator(lambda value: _paired(value, gateway, form, what))


# The keys of APIs, by the gateway in their variable's name: their form, with a group if it shows their mode, and what
# they are.
_API_KEYS = {
    "STRIPE": (
        r"(?:rk|sk)_(live|test)_[0-9A-Za-z_]{5,}",
        "restricted API keys: rk_live_… or rk_test_…, at least 13 characters long",
    ),
    "MOLLIE": (r"(live|test)_[0-9A-Za-z]{5,}", "API keys: live_… or test_…, at least 10 characters long"),
}


def _api_keys(value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
    """Keys of APIs, one for each gateway, and of the mode that the gateway is in."""
    variable = str(info.field_name).removesuffix("_api_key").upper()
    form, what = _API_KEYS[variable]
    pairs = _paired(value, variable, form, what)
    names: set[str] = set()
    for pair in pairs:
        name, _, key = pair.get_secret_value().partition(":")
        if name in names:
            raise ValueError(f"must have one key for each gateway; {name} has two")
        names.add(name)
        shown = re.fullmatch(form, key)
        mode = shown and shown.lastindex and shown[1]
        if mode and (mode == "test") is not is_test_gateway(name, info.data.get("test_gateways", ())):
            expected = "live" if mode == "test" else "test"
            other = f"add {name} to TEST_GATEWAYS" if mode == "test" else "unset TEST_GATEWAYS, or rename the gateway"
            raise ValueError(
                f"has a {mode} key for {name}, which is in {expected} mode; use a {expected} key, or {other}"
            )
    return pairs


_ON_THE_PLATFORM = AfterValidator(_on_the_platform)

GatewayNames = Annotated[Names, AfterValidator(_names)]
SomeGatewayNames = Annotated[GatewayNames, _ON_THE_PLATFORM]
IdPatterns = Annotated[Names, AfterValidator(_id_patterns), _ON_THE_PLATFORM]
StripeAccounts = Annotated[Names, _accounts("accounts with their gateways, such as STRIPE:acct_1"), _ON_THE_PLATFORM]
AdyenAccounts = Annotated[
    Names, _accounts("merchant accounts with their gateways, such as ADYEN:Shop"), _ON_THE_PLATFORM
]
StripeSecrets = Annotated[
    Secrets,
    _secrets(
        "STRIPE", "whsec_[!-~]{8,}", "the signing secrets of webhook endpoints: whsec_…, at least 14 characters long"
    ),
    _ON_THE_PLATFORM,
]
AdyenKeys = Annotated[
    Secrets,
    _secrets("ADYEN", "[0-9A-Fa-f]{64}", "the HMAC keys of webhooks, which are 64 hexadecimal digits"),
    _ON_THE_PLATFORM,
]
APIKeys = Annotated[Secrets, AfterValidator(_api_keys), _ON_THE_PLATFORM]
