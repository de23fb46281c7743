"""Card numbers are found in text, and nothing else is taken for one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graphql_api.domain.cards import has_card_number

# How a brand's numbers begin, how long they are.
BRANDS = {
    "Visa": (["4"], [13, 16, 19]),
    "Mastercard": (["51", "55", "2221", "2300", "2720"], [16]),
    "American Express": (["34", "37"], [15]),
    "Discover": (["6011", "644", "649", "65"], [16, 19]),
    "Diners Club": (["300", "305", "36", "38", "39"], [14, 19]),
    "JCB": (["3528", "3589"], [16, 19]),
    "UnionPay": (["62", "81"], [16, 17, 18, 19]),
}
# Numbers that networks and processors publish for tests.
PUBLISHED = [
    "4111111111111111",
    "4222222222222",
    "4000002760003184",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "6011111111111117",
    "30569309025904",
    "3056930009020004",
    "3566002020360505",
    "6200000000000005",
    "6205500000000000004",
]


def with_check_digit(digits, *, right=True):
    """The digits and the one that makes them valid (ISO/IEC 7812-1), or another one."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 == 0 else 1)
        total += number - 9 if number > 9 else number
    check = -total % 10 if right else (-total + 1) % 10
    return digits + str(check)


@st.composite
def card_numbers(draw, *, right=True):
    prefixes, lengths = BRANDS[draw(st.sampled_from(sorted(BRANDS)))]
    prefix, length = draw(st.sampled_from(prefixes)), draw(st.sampled_from(lengths))
    rest = draw(st.text("0123456789", min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1))
    return with_check_digit(prefix + rest, right=right)


@st.composite
def spaced(draw, digits):
    """The digits with a space or hyphen here and there, never two in a row."""
    gaps = draw(st.lists(st.sampled_from(["", "", " ", "-"]), min_size=len(digits) - 1, max_size=len(digits) - 1))
    return digits[0] + "".join(gap + digit for gap, digit in zip(gaps, digits[1:], strict=True))


words = st.sampled_from(["", "card ", "x", "no. ", "(", "ü", "#", "_", ".", "a-", "\n"])


@given(card_numbers().flatmap(spaced), words, words)
def test_a_card_number_is_found_with_separators_and_whatever_stands_around_it(number, before, after):
    assert has_card_number(before + number + after)


@pytest.mark.parametrize("number", PUBLISHED)
def test_the_numbers_that_processors_publish_are_found(number):
    assert has_card_number(number)


@given(card_numbers(right=False))
def test_a_wrong_check_digit_is_no_card_number(number):
    assert not has_card_number(number)


@given(card_numbers(), st.text("0123456789", min_size=1, max_size=8), st.booleans(), st.sampled_from(["", " ", "-"]))
def test_only_a_whole_run_of_digits_counts_never_a_part_of_one(number, more, first, joint):
    run = more + joint + number if first else number + joint + more
    digits = "".join(filter(str.isdigit, run))
    assert has_card_number(run) == has_card_number(digits)


@given(st.integers(946_684_800_000, 3_999_999_999_999))
@example(1_700_000_000_000)
def test_a_time_in_milliseconds_is_no_card_number_before_the_year_2096(milliseconds):
    assert not has_card_number(str(milliseconds))


@given(st.integers(1_000_000_000_000_000, 2_220_999_999_999_999))
def test_a_time_in_microseconds_is_no_card_number_before_the_year_2040(microseconds):
    assert not has_card_number(str(microseconds))


@given(st.integers(0, 2**22 - 1), st.integers(240_000_000_000, 470_000_000_000))
def test_a_snowflake_id_of_nineteen_digits_is_no_card_number(sequence, milliseconds):
    """Those begin with 1 until the year 2041, and no brand does."""
    snowflake = str((milliseconds << 22) | sequence)
    assert len(snowflake) == 19
    assert not has_card_number(snowflake)


@given(st.uuids(), words)
def test_a_uuid_is_no_card_number(uuid, before):
    for text in (str(uuid), str(uuid).upper()):
        assert not has_card_number(before + text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cus_NffrFeUfNV2Hib",
        "2026-11-22T17:28:02.842449+00:00",
        "2026-11-22 17:28:02",
        "+49 30 901820-1234567",
        "+4111111111111111",  # an international phone number, however long
        "175928847299117063",  # a snowflake: 18 digits from 1 on
        "1541815603606036480",
        "411111111111111",  # fifteen digits
        "4111  1111  1111  1111",  # two spaces join nothing
        "4111.1111.1111.1111",
        "4111_1111_1111_1111",
        "0000000000000000",
        "9999999999999995",
        "12345678901234567890123",
        "٤١١١١١١١١١١١١١١١",  # digits of another script
    ],
)
def test_what_only_looks_like_a_card_number_is_none(text):
    assert not has_card_number(text)
