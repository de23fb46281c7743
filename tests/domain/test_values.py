"""Text in, canonical value out, or everything that is wrong with it."""

import json
import math
from fnmatch import fnmatchcase
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain import values
from graphql_api.domain.errors import Code, InputError
from graphql_api.domain.inputs import Gateways

PAN = "4111 1111 1111 1111"


def code_of(parse, value):
    """The code that a value is refused with, None where it is taken."""
    try:
        parse(value)
    except InputError as refused:
        [problem] = refused.problems
        return problem.code
    return None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("STRIPE", "STRIPE"),
        ("stripe", "STRIPE"),
        ("  Stripe_Eu\n", "STRIPE_EU"),
        ("a", "A"),
        ("A" * 50, "A" * 50),
        ("X2_", "X2_"),
    ],
)
def test_a_gateway_has_one_spelling(text, name):
    assert values.gateway(text) == name


@pytest.mark.parametrize(
    "text", ["", " ", "_A", "1A", "A" * 51, "STRIPE EU", "STRIPE-EU", "STRIPÉ", "A\0", "A\ud800", "\u0391", "A\nB"]
)
def test_what_is_no_gateway_is_refused(text):
    assert code_of(values.gateway, text) is Code.INVALID


@pytest.mark.parametrize(
    "text", ["u", "x" * 255, "\N{GRINNING FACE}" * 255, "with space", "a\u00a0b", "é", "Undefined", "nan", "NULL", "0"]
)
def test_a_user_id_is_kept_as_sent(text):
    assert values.user_id(text) == text


SLIPS = ["undefined", "null", "NaN", "[object Object]"]
BLANKS = [" ", " u", "u ", "é\n", "\tu", "\u00a0u", "u\u3000", "\u2028u"]
INVISIBLE = ["a\tb", "a\x7fb", "\x85a", "a\u200bb", "u\u00ad", "\ufeffu", "a\u202eb", "u\u200d"]
INVISIBLE += ["a\u2028b", "a\u2029b", "a\u3164b", "\u115fa", "a\u2800"]
INVISIBLE += [f"a{blank}" for blank in "\ufe00\ufe0f\uffa0\u1160\u034f\u17b4\u180b\u180f\U000e0100\U000e01ef\U000e0001"]


@pytest.mark.parametrize("text", ["", "x" * 256, "a\0b", "\udfff", *SLIPS, *BLANKS, *INVISIBLE])
def test_what_is_no_user_id_is_refused(text):
    assert code_of(values.user_id, text) is Code.INVALID


@pytest.mark.parametrize("text", [*SLIPS, *BLANKS, *INVISIBLE])
def test_a_user_who_was_stored_before_todays_rules_may_still_be_named(text):
    assert values.stored_user_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 256, "a\0b", "\udfff"])
def test_no_user_was_ever_stored_with_a_malformed_id(text):
    assert code_of(values.stored_user_id, text) is Code.INVALID


@pytest.mark.parametrize("text", ["c", "cus_1", "x" * 255, "é" * 255, "~!@#$%^&*()", "1700000000000"])
def test_a_gateway_customer_id_is_kept_as_sent(text):
    assert values.gateway_customer_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 256,
        "a b",
        " a",
        "a\t",
        "a\n",
        "a\u00a0b",
        "a\u2028b",
        "a\u200bb",
        "\0",
        "a\x7f",
        "\ud800",
        "\ufeffa",
        "a\ufe0f",
    ],
)
def test_what_is_no_gateway_customer_id_is_refused(text):
    assert code_of(values.gateway_customer_id, text) is Code.INVALID


@pytest.mark.parametrize("text", [None, "", "x" * 2000, "line\nline", "\N{GRINNING FACE}" * 2000])
def test_a_description_is_kept_as_sent(text):
    assert values.description(text) == text


@pytest.mark.parametrize("text", ["x" * 2001, "\0", "\udc00"])
def test_what_is_no_description_is_refused(text):
    assert code_of(values.description, text) is Code.INVALID


def nested(depth, leaf=1):
    """A JSON object with this many objects and arrays inside one another."""
    value = leaf
    for level in range(depth):
        value = {"a": value} if level == depth - 1 or level % 2 else [value]
    return value


def sized(size):
    """A JSON object of so many bytes."""
    return {"k": "x" * (size - len('{"k":""}'))}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"a": [1, 1.5, -0.0, True, None, "é"]},
        nested(10),
        sized(16384),
        {"n": 2**64 - 1, "m": -(2**63)},
        {"n": 1e20},
    ],
)
def test_metadata_is_kept_as_sent(value):
    assert values.metadata(value) == value


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        1,
        True,
        nested(11),
        sized(16385),
        {"é" * 8190: 1},  # two bytes each
        {"n": math.nan},
        {"n": -math.inf},
        {"n": 2**64},
        {"n": -(2**63) - 1},
        {"n": float(2**64)},  # as a reader of JSON has 18446744073709551617
        {"n": -float(2**63)},  # and -9223372036854775809
        {"\0": 1},
        {"a": ["\0"]},
        {"a": "\ud800"},
        {"\udfff": 1},
    ],
)
def test_what_is_no_metadata_is_refused(value):
    assert code_of(values.metadata, value) is Code.INVALID


def test_the_size_of_metadata_is_that_of_its_compact_json_in_utf_8():
    value = {"ключ": ["я" * 4000, {"b": 1.5, "c": None}]}
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    rest = 16384 - size - len(',"z":""')
    assert values.metadata(value | {"z": "x" * rest})
    assert code_of(values.metadata, value | {"z": "x" * (rest + 1)}) is Code.INVALID


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (partial(Gateways().customer_id, "STRIPE"), PAN.replace(" ", "")),
        (partial(Gateways().customer_id, "STRIPE"), f"cus_{PAN.replace(' ', '-')}"),
        (partial(Gateways(numeric=frozenset({"ADYEN"})).customer_id, "STRIPE"), PAN.replace(" ", "")),
        (partial(Gateways(numeric=frozenset({"STRIPE"})).customer_id, "STRIPE"), f"cus_{PAN.replace(' ', '-')}"),
        (values.description, f"card {PAN}."),
        (values.metadata, {"note": PAN}),
        (values.metadata, {PAN: 1}),
        (values.metadata, {"a": [{"b": [f"x {PAN}"]}]}),
        (values.metadata, {"n": 4111111111111111}),
        (values.metadata, {"n": 4111111111111111.0}),
        (values.metadata, {"n": -4111111111111111.5}),
        (values.metadata, {"n": 378282246310005.25}),
    ],
)
def test_a_card_number_is_refused_wherever_it_may_stand(parse, value):
    assert code_of(parse, value) is Code.CARD_NUMBER


@pytest.mark.parametrize("value", [{"n": 0.4111111111111111}, {"ms": 1732296482842}, {"amount": 41111111.11111111}])
def test_a_number_that_is_none_is_kept(value):
    assert values.metadata(value) == value


ID = "0192d4e5-8c1a-7bbb-8ccc-0123456789ab"


def test_a_token_id_has_one_spelling_in_either_case():
    assert [values.token_id(text) for text in (ID, ID.upper(), ID.title())] == [ID] * 3


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", ID[:-1], ID + "0", "g" + ID[1:], "é" * 32, f" {ID}", f"{ID}\n"),
        *(ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", ID.replace("0", "\uff10")),
    ],
)
def test_what_no_token_can_have_as_an_id_is_none(text):
    assert values.token_id(text) is None


@pytest.mark.parametrize("text", ["\0", f"{ID}\0", "\ud800"])
def test_a_token_id_of_malformed_text_is_refused(text):
    assert code_of(values.token_id, text) is Code.INVALID


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-22T17:28:02Z", "2026-11-22T17:28:02.000000+00:00"),
        ("2026-11-22T17:28:02.842449+00:00", "2026-11-22T17:28:02.842449+00:00"),
        ("2026-11-22T23:58:02.5+05:30", "2026-11-22T18:28:02.500000+00:00"),
        ("2026-11-22 17:28:02-08:00", "2026-11-23T01:28:02.000000+00:00"),
        ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001+00:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000+00:00"),
    ],
)
def test_an_instant_is_one_in_utc(text, instant):
    assert values.instant(text).isoformat(timespec="microseconds") == instant


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T17:28:02",  # no offset
        "2026-11-22",
        "17:28:02Z",
        "2026-02-30T00:00:00Z",
        "2026-11-22T25:00:00Z",
        "0001-01-01T00:00:00+14:00",  # before the first year in UTC
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "now",
        "",
        "infinity",
        "2026-11-22T17:28:02Z\0",
        1732296482,
        None,
        True,
        ["2026-11-22T17:28:02Z"],
    ],
)
def test_what_is_no_instant_is_refused(value):
    assert code_of(values.instant, value) is Code.INVALID


def test_a_gateway_with_numeric_ids_may_have_one_that_looks_like_a_card_number():
    card = PAN.replace(" ", "")
    assert Gateways(numeric=frozenset({"ADYEN"})).customer_id("ADYEN", card) == card


@given(st.text("ab", max_size=8), st.text("ab*", min_size=1, max_size=6))
def test_a_form_of_customer_ids_matches_as_a_shells_pattern_does(text, form):
    is_taken = code_of(partial(Gateways(id_patterns={"STRIPE": form}).customer_id, "STRIPE"), text or "a") is None
    assert is_taken == fnmatchcase(text or "a", form)


def test_a_wrong_form_of_customer_id_is_named_and_only_at_its_gateway():
    gateways = Gateways(id_patterns={"STRIPE": "cus_*"})
    assert gateways.customer_id("STRIPE", "cus_1") == "cus_1"
    assert gateways.customer_id("ADYEN", "pm_1") == "pm_1"
    with pytest.raises(InputError, match=r"Customer ids at STRIPE must match cus_\* \(CUSTOMER_IDS\)"):
        gateways.customer_id("STRIPE", "pm_1")
