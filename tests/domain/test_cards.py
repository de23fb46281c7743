"""Card numbers are found in text, and nothing else is taken for one."""

import os
import random
import re
import sys
import unicodedata
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.cards import has_card_number, redact_card_numbers

# How many numbers of each kind are made: the table in docs/audit.md has 200,000.
COUNT = int(os.environ.get("TEST_CARDS", "10000"))

# How a brand's numbers begin, how long they are.
BRANDS = {
    "Visa": (["4"], [16, 19]),
    "Mastercard": (["51", "55", "2221", "2300", "2720"], [16]),
    "American Express": (["34", "37"], [15]),
    "Discover": (["6011", "644", "649", "65"], [16, 19]),
    "Diners Club": (["300", "305", "36", "38", "39"], [14, 19]),
    "JCB": (["3528", "3589"], [16, 19]),
    "UnionPay": (["62", "81"], [16, 17, 18, 19]),
    "Maestro": (["5018", "5020", "5038", "5893", "6304", "6759", "6761", "6763"], [16, 17, 18, 19]),
    "Mir": (["2200", "2204"], [16, 19]),
    "Troy": (["9792"], [16]),
    "Elo": (["401178", "438935", "457631", "504175", "506699", "509000", "627780", "636297", "650031"], [16]),
}
# Numbers that networks and processors publish for tests.
PUBLISHED = [
    "4111111111111111",
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
    "6759649826438453",
    "2200000000000053",
    "9792030394440796",
]
LAYOUTS = {14: [(14,), (4, 6, 4)], 15: [(15,), (4, 6, 5)], 16: [(16,), (4, 4, 4, 4)], 19: [(19,), (4, 4, 4, 4, 3)]}
SEPARATORS = [
    *" -\u00a0\u2009\u202f\u3000\t\n\r._/\u2013\u2014\u2010\u2011\u2212\u00ad\u200b\u200d\u2060\ufeff",
    "\r\n",
]
SEPARATORS.append("\r\n")
SCRIPTS = ["0", "\u0660", "\u06f0", "\u0966", "\uff10", "\U0001d7ce"]  # the zero of each
NEIGHBOURS = ["", "card ", "x", "no. ", "(", "ü", "#", "_", ".", "z-", "\n", "1-", "12 ", "exp", " exp12/27", " 12/27"]
NEIGHBOURS += [" 123", " 1227 123", " 4", "/12/27", "-0427", " CVV:123", "٤٤ ", "\u200b"]


def with_check_digit(digits, *, right=True):
    """The digits and the one that makes them valid (ISO/IEC 7812-1), or another one."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 == 0 else 1)
        total += number - 9 if number > 9 else number
    check = -total % 10 if right else (-total + 1) % 10
    return digits + str(check)


def card_number(draw, *, right=True):
    prefixes, lengths = draw(list(BRANDS.values()))
    prefix, length = draw(prefixes), draw(lengths)
    return with_check_digit(prefix + "".join(draw("0123456789") for _ in range(length - len(prefix) - 1)), right=right)


def written(draw, digits):
    """The digits as people write them: in groups or not, in a script, beside other things."""
    separator, zero = draw(SEPARATORS), draw(SCRIPTS)
    groups, place = [], 0
    for size in draw(LAYOUTS.get(len(digits), [(len(digits),)])):
        groups.append("".join(chr(ord(zero) + int(digit)) for digit in digits[place : place + size]))
        place += size
    before, after = draw(NEIGHBOURS), draw(NEIGHBOURS)
    return ("" if before[-1:].isdigit() else before) + separator.join(groups) + ("" if after[:1].isdigit() else after)


@st.composite
def drawn(draw, make):
    return make(lambda values: draw(st.sampled_from(values)))


@given(drawn(lambda draw: written(draw, card_number(draw))))
def test_a_card_number_is_found_however_it_is_written_and_whatever_stands_beside_it(text):
    assert has_card_number(text)


def test_every_space_dash_and_invisible_character_may_separate_groups():
    kinds = {"Pd", "Zs", "Zl", "Zp", "Cf"}
    separators = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in kinds]
    assert len(separators) > 200
    missed = [each for each in separators if not has_card_number(each.join(["4111", "1111", "1111", "1111"]))]
    assert missed == []


@given(drawn(lambda draw: written(draw, card_number(draw))))
def test_a_redacted_text_holds_no_digit_of_a_card_number(text):
    assert not re.search(r"\d", redact_card_numbers(text))


def test_of_many_card_numbers_with_neighbours_none_is_missed(record_property):
    draw = random.Random(4111).choice
    missed = [text for text in (written(draw, card_number(draw)) for _ in range(COUNT)) if not has_card_number(text)]
    record_property("measured", (f"{COUNT:,} cards: missed", str(len(missed))))
    assert missed == []


def digits(chance, count):
    return "".join(chance.choices("0123456789", k=count))


INNOCENT = {
    "German mobile numbers": lambda chance: f"49{chance.choice(['151', '160', '170', '176'])}{digits(chance, 8)}",
    "phone numbers with a country code": lambda chance: f"+{chance.randint(1, 998)}{digits(chance, 12)}"[:16],
    "EAN-13": lambda chance: str(chance.randint(400_0000000000, 440_9999999999)),
    "seconds": lambda chance: str(chance.randint(1_000_000_000, 3_999_999_999)),
    "milliseconds": lambda chance: str(chance.randint(946_684_800_000, 3_999_999_999_999)),
    "microseconds": lambda chance: str(chance.randint(1_000_000_000_000_000, 2_199_999_999_999_999)),
    "nanoseconds": lambda chance: str(chance.randint(10**18, 2 * 10**18)),
    "ISO 8601": lambda chance: f"2026-11-22T17:28:02.{digits(chance, 6)}+00:00",
    "compact times": lambda chance: f"20{chance.randint(10, 99)}1122172802{digits(chance, 3)}",
    "UUIDs": lambda chance: str(uuid.UUID(int=chance.getrandbits(128))),
    "UUIDs without hyphens": lambda chance: f"a{chance.getrandbits(124):031x}",
    "SHA-256": lambda chance: f"f{chance.getrandbits(252):063x}",
    "snowflakes of 18 digits": lambda chance: f"1{digits(chance, 17)}",
    "Stripe's identifiers": lambda chance: f"cus_{''.join(chance.choices('abcdefghijkXYZ0123456789', k=14))}",
    "amounts": lambda chance: f"{chance.randint(0, 10**9)}.{digits(chance, 2)}",
}


@pytest.mark.parametrize("kind", INNOCENT)
def test_of_innocent_numbers_fewer_than_one_in_a_thousand_is_taken_for_a_card(kind, record_property):
    assert share_taken(kind, INNOCENT[kind], record_property) < 0.001


def share_taken(kind, make, record_property):
    chance = random.Random(kind)
    share = sum(has_card_number(make(chance)) for _ in range(COUNT)) / COUNT
    record_property("measured", (f"{COUNT:,} {kind}: taken for a card", f"{share:.2%}"))
    return share


def gtin(chance):
    code = f"3{digits(chance, 12)}"
    return code + str(-sum(int(digit) * (1 if place % 2 else 3) for place, digit in enumerate(code)) % 10)


# Numbers that nothing, or little, tells apart from a bare card, and how many of them are taken for one.
LIKE_CARDS = {
    "numbers of 14 digits": (lambda chance: digits(chance, 14), 0.004),
    "numbers of 16 digits": (lambda chance: digits(chance, 16), 0.04),
    "numbers of 19 digits": (lambda chance: digits(chance, 19), 0.029),
    ".NET ticks": (lambda chance: f"63{digits(chance, 16)}", 0.1),
    "DDMMYYYYHHMMSS on the 30th": (lambda chance: f"30{chance.randint(1, 12):02}2026{digits(chance, 6)}", 0.1),
    "YYMMDDHHMMSSffff of 2020 to 2039": (
        lambda chance: (
            f"{chance.randint(20, 39)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}{digits(chance, 10)}"
        ),
        0.046,
    ),
    "GTIN-14 that begin with 3": (gtin, 0.036),
    "German IBANs in groups": (lambda chance: " ".join(re.findall("..?.?.?", f"DE{digits(chance, 20)}")), 0.039),
    "fractions as text": (lambda chance: str(chance.random()), 0.03),
}


@pytest.mark.parametrize("kind", LIKE_CARDS)
def test_numbers_that_look_like_cards_are_taken_for_cards_as_often_as_the_page_says(kind, record_property):
    make, expected = LIKE_CARDS[kind]
    assert share_taken(kind, make, record_property) == pytest.approx(expected, rel=0.3, abs=0.005)


@pytest.mark.parametrize("number", PUBLISHED)
def test_the_numbers_that_processors_publish_are_found(number):
    assert has_card_number(number)


@given(drawn(lambda draw: card_number(draw, right=False)))
def test_a_wrong_check_digit_is_no_card_number(number):
    assert not has_card_number(number)


@given(drawn(card_number), st.text("0123456789", min_size=1, max_size=30), st.booleans())
def test_a_part_of_a_group_of_digits_is_no_card_number(number, more, first):
    group = more + number if first else number + more
    assert has_card_number(group) == (len(group) <= 19 and has_card_number(f" {group} "))


@given(drawn(card_number), st.text("0123456789abcdef", max_size=20))
def test_digits_in_a_hexadecimal_word_are_an_identifiers(number, more):
    assert not has_card_number(f"{number}ab{more}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cus_NffrFeUfNV2Hib",
        "+49 30 901820-1234567",
        "+378282246310005",  # fifteen digits after a plus: an international phone number
        "+3782 822463 10005",
        "4222222222222",  # Visa no longer issues thirteen digits
        "411111111111111",
        "4111  1111  1111  1111",  # two spaces
        "4111 1111-1111 1111",  # different separators
        "411 11111 1111 1111",  # not the layout of a card
        "0000000000000000",
        "9999999999999995",
        "12345678901234567890123",
        "aaaa4111-1111-1111-1111-aaaaaaaaaaaa",
        "41111111-1111-1111-1111-111111111111",
    ],
)
def test_what_only_looks_like_a_card_number_is_none(text):
    assert not has_card_number(text)


def test_a_plus_before_more_digits_than_a_phone_number_has_hides_nothing():
    assert has_card_number("+4111111111111111")
