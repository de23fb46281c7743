"""Environment variables: each is read by its name, checked once, and never shown with a secret in it."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

import graphql_api
from graphql_api.domain.inputs import Gateways
from graphql_api.settings import ConfigurationError, Settings
from graphql_api.storage.connector import described

SECRET = "a secret of the tests, which is no secret"
CONFIGURATION = (Path(graphql_api.__file__).parents[1] / "docs" / "configuration.md").read_text()
SECONDS = {"replica_max_lag", "database_timeout", "request_timeout"}
COUNTS = {name for name in Settings.model_fields if name.startswith("max_")} - {"max_batch_requests"}  # 0 is none


@pytest.fixture
def environment(monkeypatch):
    """An environment with these variables and none of the service's otherwise."""

    def make(**variables):
        for name in Settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name.upper(), value)

    make()
    return make


def refusal():
    with pytest.raises(ConfigurationError) as refused:
        Settings.load()
    return str(refused.value)


def test_without_any_variable_there_is_a_default_for_each(environment):
    settings = Settings.load()

    assert settings == Settings.model_construct()
    assert (settings.database_url, settings.authenticates, settings.introspects) == (None, False, True)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_counts_as_not_set(environment, name):
    environment(**{name: ""})

    assert Settings.load() == Settings.model_construct()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_variable_is_explained(name):
    assert re.search(rf"`{name.upper()}`", CONFIGURATION)


def test_no_file_of_the_working_directory_is_read(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("LOG_LEVEL=debug\n")

    assert Settings.load().log_level == "info"


def test_settings_do_not_change_once_they_are_read(environment):
    with pytest.raises(ValidationError):
        Settings.load().log_level = "debug"


@pytest.mark.parametrize("name", sorted(SECONDS))
@pytest.mark.parametrize("value", ["0", "-1", "3601", "nan", "inf", "soon"])
def test_seconds_are_more_than_none_and_at_most_an_hour(environment, name, value):
    environment(**{name: value})

    assert refusal().startswith(f"{name.upper()} ")


@pytest.mark.parametrize("name", sorted(COUNTS))
@pytest.mark.parametrize("value", ["0", "-1", str(2**31), "1.5", "many"])
def test_a_limit_is_a_whole_number_of_one_or_more(environment, name, value):
    environment(**{name: value})

    assert refusal().startswith(f"{name.upper()} ")


@given(st.integers(1, 2**31 - 1), st.sampled_from(sorted(COUNTS)))
def test_a_limit_is_taken_as_it_is(number, name):
    assert getattr(Settings(**{name: str(number)}), name) == number


def test_every_problem_is_told(environment):
    environment(max_depth="deep", introspection="maybe")
    with pytest.raises(ConfigurationError) as refused:
        Settings.load()

    assert len(refused.value.problems) == 2
    assert {problem.split()[0] for problem in refused.value.problems} == {"MAX_DEPTH", "INTROSPECTION"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("max_depth", "9" * 5000, "must be a whole number, not '999"),
        ("max_depth", "0", "must be at least 1, not '0'"),
        ("max_depth", "\udcff", "has bytes that are not UTF-8"),
        ("cors_headers", "X-Ok,a b", "must be names of HTTP headers, such as X-Client-Name; 'a b' is not one"),
        ("event_webhooks", "a=https://a b/", "the address of a contains whitespace or an invisible character"),
        ("request_timeout", "0", "must be greater than 0, not '0'"),
        ("request_timeout", "1e9", "must be at most 3600, not '1e9'"),
        ("trusted_documents", "x" * 5000, "must be the path of a readable file; 'xxx"),
        ("trusted_documents", "\udcff", r"must be the path of a readable file; '\udcff' does not exist"),
        ("auth_secret", "\udcff", "must have at least 32 bytes, not 1"),
        ("gateways", "STRIPE,S T", "must be comma-separated gateway names, such as STRIPE,PAYPAL; 'S T' is not a"),
        (
            "stripe_accounts",
            "STRIPE:",
            "must contain accounts with their gateways, such as STRIPE:acct_1; nothing follows STRIPE",
        ),
        ("stripe_accounts", "acct_1", "such as STRIPE:acct_1; acct_1 has no gateway and colon before it"),
        ("database_url", "postgresql://u@127.0.0.1 :5432/d", "it contains whitespace"),
        ("database_url", "postgresql://u@127.0.0.1/d ", "it contains whitespace"),
        ("database_url", "postgresql://u@127.0.0.1/d?sslmode=disable ", "it contains whitespace"),
        ("database_url", "postgresql://u:p@127.0.0.1:54x2/d", "; a port is not a number from 1 to 65535"),
        ("database_url", "postgresql://u@127.0.0.1/d?sslmode=verifyfull", "; sslmode must be disable, allow, prefer, "),
        ("database_url", "postgresql:///d?sslrootcert=system", "; sslrootcert=system is not supported: name a file"),
        ("database_url", "postgresql:///d?sslkey=/nowhere", "; the file of sslkey does not exist or cannot be read"),
        (
            "event_webhooks",
            "a=https://a.example,https://b.example",
            "endpoint 2 has no name (of letters, digits, _ and -)",
        ),
    ],
)
def test_a_message_says_in_plain_words_what_is_wrong_with_the_value(environment, name, value, says):
    environment(**{name: value})

    assert says in refusal()
    assert len(refusal()) < 300


SECRETS = {
    "auth_secret": "hidden",
    "stripe_webhook_secret": "hidden:",
    "stripe_api_key": "hid den:x",
    "adyen_webhook_hmac_key": "1x:hidden",
    "database_url": "mysql://me:hidden@host/x",
    "database_replica_url": "postgresql://me:hidden@host:port/x",
}


@pytest.mark.parametrize(("name", "value"), SECRETS.items())
def test_what_is_wrong_with_a_secret_is_said_without_it(environment, name, value):
    environment(**{name: value})
    said = refusal()

    assert said.startswith(f"{name.upper()} must ")
    assert "hid" not in said


@given(st.text(st.sampled_from("ab1%@:/?#[]\\, \n=&é"), min_size=1))
@example("p@hunter2/x")
@example("1/2")
@example("1?a")
@example("[1")
@example("pa?ss")
def test_a_database_is_described_without_any_part_of_the_password_escaped_or_not(password):
    try:
        url = Settings(database_url=f"postgresql://u:{password}@127.0.0.1:1/tokens").database_url
    except ValidationError as refused:
        said = refused.errors()[0]["msg"].partition("; ")[2]
        assert said.startswith(
            "write %, @, :, /, ?, #, [ and ]" if password.isprintable() and " " not in password else ""
        )
    else:
        assert described(url) == "tokens on 127.0.0.1:1"


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=32).filter(str.strip))
def test_no_secret_is_shown_by_the_settings(secret):
    assert repr(secret) not in repr(Settings(auth_secret=secret, auth_mode="jwt"))


@pytest.mark.parametrize(
    ("variables", "authenticates"),
    [
        ({}, False),
        ({"auth_mode": "disabled"}, False),
        ({"auth_secret": SECRET}, True),
        ({"auth_jwks_url": "https://issuer.example/keys"}, True),
        ({"auth_jwks_file": __file__}, True),
        ({"auth_secret": SECRET, "auth_mode": "jwt"}, True),
        ({"auth_secret": SECRET, "auth_mode": "disabled"}, False),
    ],
)
@pytest.mark.parametrize(("introspection", "introspects"), [("", None), ("true", True), ("false", False)])
def test_introspection_is_on_by_itself_only_if_authentication_is_off(
    environment, variables, authenticates, introspection, introspects
):
    environment(**variables, introspection=introspection)
    settings = Settings.load()

    assert settings.authenticates is authenticates
    assert settings.introspects is (not authenticates if introspects is None else introspects)


@pytest.mark.parametrize("name", ["auth_jwks_url", "auth_jwks_file"])
def test_there_is_one_kind_of_key(environment, name):
    value = {"auth_jwks_url": "https://issuer.example/keys", "auth_jwks_file": __file__}[name]
    environment(**{"auth_secret": SECRET, name: value})

    assert refusal().startswith(f"{name.upper()} and AUTH_SECRET: set ")


def test_tokens_cannot_be_asked_for_without_a_key(environment):
    environment(auth_mode="jwt")

    assert refusal().startswith("AUTH_MODE: jwt needs a key")


@pytest.mark.parametrize("name", ["auth_jwks_file", "trusted_documents"])
def test_a_file_has_to_be_there(environment, tmp_path, name):
    for path in (tmp_path, tmp_path / "missing"):
        environment(**{name: str(path)})
        assert refusal().startswith(f"{name.upper()} must be the path of a ")


def test_several_replicas_are_hosts_of_an_address_or_whole_addresses(environment):
    environment(database_replica_url="postgresql://a,b/x , postgres://c:5433/x")

    assert Settings.load().database_replica_url == ("postgresql://a,b/x", "postgres://c:5433/x")


def test_what_is_said_of_gateways_is_taken_in_their_one_spelling(environment):
    environment(gateways="stripe, PayPal", numeric_customer_ids="paypal", customer_ids="stripe:cus_*")
    settings = Settings.load()

    assert settings.rules_of_gateways == Gateways(
        frozenset({"STRIPE", "PAYPAL"}), frozenset({"PAYPAL"}), {"STRIPE": "cus_*"}
    )


@pytest.mark.parametrize(("name", "value"), [("customer_ids", "ADYEN:x*"), ("numeric_customer_ids", "ADYEN")])
def test_rules_of_ids_are_of_gateways_of_the_platform(environment, name, value):
    environment(gateways="STRIPE", **{name: value})

    assert refusal() == f"{name.upper()} names ADYEN, which is not in GATEWAYS"


@pytest.mark.parametrize(
    "value", ["STRIPE", "STRIPE:", "1x:cus_*", "STRIPE:a,STRIPE:b", "STRIPE:cus_*;MOLLIE:cst_*", "STRIPE:cus *"]
)
def test_a_form_of_customer_ids_is_of_one_gateway(environment, value):
    environment(customer_ids=value)

    assert refusal().startswith("CUSTOMER_IDS must ")


@pytest.mark.parametrize(
    "value", ["https://shop.example/", "shop.example", "null", "https://me@shop.example", "https://"]
)
def test_an_origin_is_a_scheme_and_a_host(environment, value):
    environment(cors_origins=f"https://good.example,{value}")

    assert refusal().startswith("CORS_ORIGINS must be a comma-separated list of origins")


KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("stripe_webhook_secret", "sk_test_51Habcdefghijkl"),
        ("stripe_webhook_secret", "whsec_"),
        ("stripe_webhook_secret", "whsec_short"),
        ("stripe_webhook_secret", "whsec_with a space"),
        ("stripe_webhook_secret", "whsec_the_same_one,STRIPE_EU:whsec_the_same_one"),
        ("stripe_webhook_secret", "STRIPE_US:whsec_of_an_unknown_gateway"),
        ("adyen_webhook_hmac_key", KEY[:-1]),
        ("adyen_webhook_hmac_key", f"PAYPAL:{KEY}"),
        ("stripe_accounts", "acct_1"),
        ("stripe_accounts", "STRIPE_US:acct_1"),
        ("adyen_merchant_accounts", "ADYEN:"),
        ("test_gateways", "STRIPE_US"),
    ],
)
def test_what_cannot_be_meant_of_webhooks_is_refused_without_its_secret(monkeypatch, variable, value):
    monkeypatch.setenv("GATEWAYS", "STRIPE,STRIPE_EU,ADYEN")
    monkeypatch.setenv(variable.upper(), value)
    with pytest.raises(ConfigurationError) as wrong:
        Settings.load()
    assert str(wrong.value).startswith(variable.upper())
    assert "secret" not in variable or value.rpartition(":")[2] not in str(wrong.value).split()


def test_secrets_are_known_by_their_gateways_without_white_space(monkeypatch):
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", " whsec_of_this_year , stripe_eu: whsec_of_europe ")
    secrets = [secret.get_secret_value() for secret in Settings.load().stripe_webhook_secret]
    assert secrets == ["STRIPE:whsec_of_this_year", "STRIPE_EU:whsec_of_europe"]


WHSEC = "whsec_" + "A" * 32  # 24 bytes


@pytest.mark.parametrize(
    ("webhooks", "private"),
    [
        ("billing=https://billing.example/events", "false"),
        ("a=https://a.example, b-2=https://b.example:8443/x?y=z", "false"),
        ("a=http://127.0.0.1:9/x,b=http://localhost/x,c=http://[::1]/x,d=https://127.0.0.1", "false"),
        ("a=http://a.example/x,b=https://10.0.0.1/x,c=http://192.168.1.1", "true"),
    ],
)
def test_endpoints_of_deliveries_each_have_a_secret(environment, webhooks, private):
    names = [pair.partition("=")[0].strip() for pair in webhooks.split(",")]
    secrets = ",".join(f"{name}:{WHSEC}" for name in [*names, names[0]])
    environment(event_webhooks=webhooks, event_webhook_secrets=secrets, event_webhook_allow_private=private)
    found = Settings.load().event_endpoints
    assert [name for name, *_ in found] == names
    assert [(len(keys), credentials) for _, _, keys, credentials in found] == [(2, "")] + [(1, "")] * (len(names) - 1)


@pytest.mark.parametrize(("secrets", "credentials"), [("", ""), ("s:a-token", "a-token"), ("s:me:a:b", "me:a:b")])
def test_a_stream_has_a_token_or_a_user_or_neither(environment, secrets, credentials):
    url = "tls://nats.example:4223/events.tokens"
    environment(event_webhooks=f"a=https://a.example,s={url}", event_webhook_secrets=f"a:{WHSEC},{secrets}".rstrip(","))
    [_, stream] = Settings.load().event_endpoints
    assert stream == ("s", url, (), credentials)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"event_webhooks": "https://a.example"}, "EVENT_WEBHOOKS must be named endpoints"),
        ({"event_webhooks": "a b=https://a.example"}, "EVENT_WEBHOOKS must be named endpoints"),
        (
            {"event_webhooks": "a=ftp://a.example"},
            "the address of a does not begin with https://, http://, nats:// or tls://",
        ),
        ({"event_webhooks": "a=http://a.example"}, "the address of a begins with http://"),
        ({"event_webhooks": "a=https://010.0.0.1/"}, "the address of a is not one that a program can connect to"),
        ({"event_webhooks": "a=https://256.1.1.1/"}, "the address of a is not one that a program can connect to"),
        ({"event_webhooks": "a=https://b..example/"}, "the address of a is not one that a program can connect to"),
        (
            {"event_webhooks": f"a=https://{'b' * 64}.example/"},
            "the address of a is not one that a program can connect to",
        ),
        (
            {"event_webhooks": f"a=https://b.example/{'c' * 70_000}"},
            "the address of a is not one that a program can connect to",
        ),
        ({"event_webhooks": "a=https://b.example/\x7f"}, "the address of a contains whitespace or an invisible"),
        ({"event_webhooks": "a=https://b…/"}, "the address of a is not one that a program can connect to"),
        (
            {"event_webhooks": "a=https://\uff11\uff10.0.0.1/"},
            "the address of a is not one that a program can connect to",
        ),
        ({"event_webhooks": "a=http://127.0.0.1.example"}, "the address of a begins with http://"),
        ({"event_webhooks": "a=https://10.0.0.1"}, "the address of a is private"),
        ({"event_webhooks": "a=https://169.254.169.254"}, "the address of a is private"),
        ({"event_webhooks": "a=https://[fd00::1]"}, "the address of a is private"),
        ({"event_webhooks": "a=https://u:p@a.example"}, "the address of a holds a user or a password"),
        ({"event_webhooks": "a=https://a.example,a=https://b.example"}, "a is there twice"),
        ({"event_webhooks": "a=https://a.example"}, "EVENT_WEBHOOK_SECRETS must have a secret for each"),
        ({"event_webhook_secrets": f"a:{WHSEC}"}, "'a' is not in EVENT_WEBHOOKS"),
        ({"event_webhook_secrets": WHSEC}, "secret 1 has another form or length"),
        (
            {"event_webhook_secrets": "a:whsec_" + "A" * 31},
            "24 to 64 bytes; secret 1 has another form or length",
        ),  # 23 bytes
        (
            {"event_webhook_secrets": "a:whsec_" + "A" * 87},
            "24 to 64 bytes; secret 1 has another form or length",
        ),  # 65 bytes
        ({"event_webhook_secrets": "a:whsec_" + "!" * 32}, "24 to 64 bytes; secret 1 has another form or length"),
        ({"event_webhook_secrets": "a:" + "A" * 32}, "24 to 64 bytes; secret 1 has another form or length"),
        (
            {"event_webhooks": "a=https://a.example", "event_webhook_secrets": f"a:{WHSEC},a:short"},
            "secret 2, of a, has another form or length",
        ),
        ({"event_webhook_actions": "DEACTIVATE"}, "'DEACTIVATE' is not one of them"),
        ({"event_webhooks": "a=nats://127.0.0.1"}, "the address of a does not end with a subject"),
        ({"event_webhooks": "a=nats://127.0.0.1/"}, "the address of a does not end with a subject"),
        ({"event_webhooks": "a=nats://127.0.0.1/x.*"}, "the address of a does not end with a subject"),
        ({"event_webhooks": "a=nats://127.0.0.1/x?y"}, "the address of a does not end with a subject"),
        ({"event_webhooks": "a=nats://nats.example/x"}, "the address of a begins with nats://"),
        ({"event_webhooks": "a=nats:///x"}, "the address of a names no host"),
        ({"event_webhooks": "a=tls://10.0.0.1/x"}, "the address of a is private"),
        ({"event_webhooks": "a=tls://u:p@nats.example/x"}, "the address of a holds a user or a password"),
        ({"event_webhooks": "a=https://[::10.0.0.1]"}, "the address of a is private"),
        ({"event_webhooks": "a=tls://b.example/x", "event_webhook_secrets": "a:b,a:c"}, "a has several"),
    ],
)
def test_endpoints_of_deliveries_that_cannot_be_used_are_refused(environment, variables, says):
    environment(**variables)
    message = refusal()
    assert says in message
    assert WHSEC not in message
    Settings.inspect()  # and what is wrong with all of them is found


def test_actions_of_deliveries_are_named_in_any_case(environment):
    environment(event_webhook_actions="deactivated, DELETED,deleted")
    assert Settings.load().event_webhook_actions == ("DEACTIVATED", "DELETED")
