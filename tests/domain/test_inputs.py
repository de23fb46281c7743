"""Inputs as a whole: canonical, or refused with everything that is wrong with them."""

import pytest

from graphql_api.domain.errors import Code, InputError
from graphql_api.domain.inputs import MAX_LEASE, MIN_LEASE, Gateways, Save, Update, lease_seconds
from graphql_api.domain.token import Edit, Given


def problems_of(parse, *arguments, **named):
    with pytest.raises(InputError) as refused:
        parse(*arguments, **named)
    return [(problem.code, problem.field) for problem in refused.value.problems]


def save(**changes):
    given = {
        "user_id": "u1",
        "gateway": " stripe ",
        "gateway_customer_id": "cus_1",
        "description": None,
        "metadata": None,
        "is_active": None,
    }
    return Save.parse(Gateways(), **(given | changes))


def test_a_save_is_canonical_and_tells_what_was_left_out_from_null():
    parsed = save(description=Given(None), metadata=Given({"a": 1}), replaces="cus_0", expected_version=3)
    assert parsed == Save("u1", "STRIPE", Edit("cus_1", Given(None), Given({"a": 1}), None), "cus_0", 3)
    assert parsed.customer == "cus_1"


def test_a_save_names_everything_that_is_wrong_with_it():
    wrong = {
        "user_id": "",
        "gateway": "1",
        "gateway_customer_id": "a b",
        "description": Given("x" * 2001),
        "metadata": Given([]),
        "is_active": Given(None),
        "replaces": "\0",
    }
    fields = ["userId", "gateway", "replaces", "gatewayCustomerId", "isActive", "description", "metadata"]
    assert problems_of(save, **wrong) == [(Code.INVALID, (field,)) for field in fields]


def test_an_update_cannot_take_the_customer_away():
    assert problems_of(Update.parse, token_id="x", gateway_customer_id=Given(None)) == [
        (Code.INVALID, ("gatewayCustomerId",))
    ]


def test_an_update_of_what_no_token_can_be_called_has_no_id():
    assert Update.parse(token_id="x").id is None
    text = "0198F2A0-0000-7000-8000-000000000000"
    assert Update.parse(token_id=text).id == text.lower()


def test_only_allowed_gateways_are_gateways():
    gateways = Gateways(frozenset({"STRIPE"}))
    assert gateways.parse("stripe") == gateways.key("Stripe ") == "STRIPE"
    assert gateways.key("PAYPAL") is None
    assert problems_of(gateways.parse, "PAYPAL") == [(Code.INVALID, ())]


@pytest.mark.parametrize("seconds", [MIN_LEASE, 30, MAX_LEASE])
def test_a_lease_within_its_limits_is_taken(seconds):
    assert lease_seconds(seconds) == seconds


@pytest.mark.parametrize("seconds", [MIN_LEASE - 1, MAX_LEASE + 1])
def test_a_lease_beyond_its_limits_is_refused(seconds):
    assert problems_of(lease_seconds, seconds) == [(Code.INVALID, ())]
