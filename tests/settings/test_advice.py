"""Advice on settings: what is valid and unsafe is named, and so is a variable that is probably meant to be another."""

import pytest

from graphql_api.settings import Settings
from graphql_api.settings.advice import misspellings, weaknesses

SECRET = "a secret of the tests, which is no secret"
WEAK = [
    ({"router_secret": "a"}, "ROUTER_SECRET: "),
    ({"router_secret": f"{SECRET},b"}, "ROUTER_SECRET: secret 3 is shorter"),
    ({"stripe_webhook_secret": "STRIPE_EU:whsec_12345678"}, "STRIPE_WEBHOOK_SECRET: "),
    ({"stripe_api_key": "sk_live_12345678"}, "STRIPE_API_KEY: a secret key may do everything"),
    ({"customer_ids": "MOLLIE:cst_*,STRIPE:cus_"}, "CUSTOMER_IDS: cus_ allows only this customer id at STRIPE"),
    ({"otel_exporter_otlp_endpoint": "http://collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT: port 4317"),
    ({"auth_mode": "disabled"}, "AUTH_SECRET: has no effect"),
    ({"auth_mode": "disabled", "auth_secret": None, "cors_origins": "*"}, "CORS_ORIGINS: "),
    ({"auth_secret": None, "auth_jwks_url": "https://a.example/k", "auth_issuer": "i"}, "AUTH_AUDIENCE: not set"),
    ({"auth_secret": None, "auth_jwks_url": "https://a.example/k", "auth_audience": "a"}, "AUTH_ISSUER: not set"),
    (
        {"auth_secret": None, "auth_jwks_url": "http://a.example/k", "auth_issuer": "i", "auth_audience": "a"},
        "AUTH_JWKS_URL: http://",
    ),
]
SOUND = [
    {"auth_secret": SECRET, "router_secret": SECRET, "otel_exporter_otlp_endpoint": "http://collector:4318"},
    {"auth_mode": "disabled"},
    {"auth_secret": SECRET, "stripe_api_key": "STRIPE_EU:rk_live_12345678,STRIPE_TEST:sk_test_12345678"},
    {"auth_jwks_url": "https://a.example/k", "auth_issuer": "i", "auth_audience": "a"},
    {"auth_jwks_url": "http://127.0.0.1:1/k", "auth_issuer": "i", "auth_audience": "a"},
]


@pytest.mark.parametrize(("settings", "says"), WEAK, ids=[says for _, says in WEAK])
def test_a_weak_setting_is_named(settings, says):
    (told,) = weaknesses(Settings(**{"auth_secret": SECRET, **settings}))
    assert told.startswith(says)


@pytest.mark.parametrize("settings", SOUND)
def test_of_sound_settings_nothing_is_said(settings):
    assert weaknesses(Settings(**settings)) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_DEPHT", "MAX_DEPTH"),
        ("LOG_LEVLE", "LOG_LEVEL"),
        *((name, "DATABASE_URL") for name in ("POSTGRES_URL", "PG_URL", "PGURL", "POSTGRESQL_URI", "DB_URL")),
        ("PGHOST", None),
        ("DEPTH_MAX", None),
    ],
)
def test_a_variable_that_looks_like_a_slip_is_named(name, meant):
    said = [f"{name} is set, but the service has no such setting. Did you mean {meant}?"] if meant else []
    assert misspellings({name: "x"}) == said
    assert meant is None or misspellings({name: "x", meant: "y"}) == []
