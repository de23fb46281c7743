"""Finds payment card numbers in text: a card's layout, a known brand's prefix and a valid check digit."""

import re
import unicodedata
from typing import NamedTuple

# Unicode's format characters (Cf), and its dashes (Pd) with what looks like one. Its spaces are Python's `\s`.
_INVISIBLE = (
    r"\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    r"\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    r"\U000e0020-\U000e007f"
)
_DASHES = (
    r"\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2043\u2053\u207b\u208b\u2212\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u2e5d\u301c"
    r"\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d\U00010d6e\U00010ead"
)
_SEPARATOR = re.compile(rf"\r\n|[\s._/{_DASHES}{_INVISIBLE}]")
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
# The digits that one match finds: a group, or several as they are grouped on cards and in forms. Looking ahead lets
# candidates overlap.
_CANDIDATES = tuple(
    re.compile(rf"(?<![0-9])(?=({digits})(?![0-9]))")
    for digits in (
        "[0-9]{14,19}+",
        *(
            "".join([f"[0-9]{{{first}}}", rf"(?P<separator>{_SEPARATOR.pattern})", f"[0-9]{{{second}}}"])
            + "".join(f"(?P=separator)[0-9]{{{each}}}" for each in others)
            for first, second, *others in ((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4))
        ),
    )
)
# Every card number has twelve digits with at most one separator each before the fifth, the ninth and the eleventh: most
# texts end here.
_MAYBE = re.compile(r"\d{4}[^0-9A-Za-z]{0,2}\d{4}[^0-9A-Za-z]{0,2}\d{2}[^0-9A-Za-z]{0,2}\d{2}")
# In ASCII nothing is invisible, so that what separates them can be told exactly.
_MAYBE_IN_ASCII = re.compile(rf"(?:{_SEPARATOR.pattern})?".join((r"\d{4}", r"\d{4}", r"\d{2}", r"\d{2}")))
_NUMBERS = re.compile(rf"\d(?:(?:{_SEPARATOR.pattern}){{0,2}}\d)*")
_BEFORE, _AFTER = r"(?<![^\W_])", r"(?![^\W_])"
# Digits in these are an identifier's. The quantifiers are possessive, so that a search is linear.
_IDENTIFIERS = re.compile(
    rf"{_BEFORE}(?:[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}|(?=[0-9]*+[a-f])[0-9a-f]{{16,}}+){_AFTER}",
    re.IGNORECASE,
)
_DIGIT_SUM_OF_DOUBLE = str.maketrans("0123456789", "0246813579")
MAX_CHARACTERS = 40  # of a number, with what may stand between its digits
_MIN_DIGITS = 14
_MAX_PHONE_DIGITS = 15  # ITU-T E.164, with the country's code


class _Brand(NamedTuple):
    """The numbers that a card network issues: from … to, as prefixes of equal length, and how many digits they have."""

    first: int
    last: int
    lengths: frozenset[int]


def _brand(first: int, last: int | None = None, *, lengths: range | tuple[int, ...]) -> _Brand:
    return _Brand(first, first if last is None else last, frozenset(lengths))


_LONG = range(16, 20)
# ISO/IEC 7812 issuer identification numbers as the networks publish them. Elo's lie within those of Visa, Maestro and
# Discover.
_BRANDS = (
    _brand(4, lengths=(16, 19)),  # Visa
    _brand(51, 55, lengths=(16,)),  # Mastercard
    _brand(2221, 2720, lengths=(16,)),  # Mastercard since 2017
    _brand(34, lengths=(15,)),  # American Express
    _brand(37, lengths=(15,)),
    _brand(300, 305, lengths=range(14, 20)),  # Diners Club
    _brand(3095, lengths=range(14, 20)),
    _brand(36, lengths=range(14, 20)),
    _brand(38, 39, lengths=range(14, 20)),
    _brand(3528, 3589, lengths=_LONG),  # JCB
    _brand(50, lengths=_LONG),  # Maestro
    _brand(56, 58, lengths=_LONG),
    _brand(6, lengths=_LONG),  # Maestro, Discover (6011, 644 to 65), UnionPay (62)
    _brand(81, lengths=_LONG),  # UnionPay
    _brand(2200, 2204, lengths=_LONG),  # Mir
    _brand(9792, lengths=(16,)),  # Troy
)


def has_card_number(text: str) -> bool:
    """Whether the text holds a payment card number, whatever stands next to it.

    A number is one group of digits of any script, or groups as cards are written (4-4-4-4, 4-4-4-4-3, 4-6-5, 4-6-4)
    that the same space, dash, line end, dot, underscore, slash or invisible character separates. Digits inside a UUID
    or a word of 16 or more hexadecimal characters with a letter are none, nor is a `+` with up to 15 digits (a phone).
    Takes time in proportion to the text's length.
    """
    if len(text) < _MIN_DIGITS:
        return False
    is_ascii = text.isascii()
    if is_ascii and _MAYBE_IN_ASCII.search(text) is None:
        return False
    if not is_ascii:
        text = "".join([str(unicodedata.digit(character)) if character.isdigit() else character for character in text])
        if _MAYBE.search(text) is None:
            return _HIDDEN.search(text) is not None and has_card_number(_HIDDEN.sub("", text))
    visible = _IDENTIFIERS.sub("x", text)
    return _is_found(visible) or (_HIDDEN.search(visible) is not None and _is_found(_HIDDEN.sub("", visible)))


def redact_card_numbers(text: str) -> str:
    """The text; if it holds a card number, every number in it is replaced by `…`."""
    return _NUMBERS.sub("…", text) if has_card_number(text) else text


def quoted(text: str, most: int = 60) -> str:
    """The first characters of a text, for a message: in quotation marks, and without card numbers."""
    return repr(redact_card_numbers(text[: most + MAX_CHARACTERS])[:most])


def _is_found(text: str) -> bool:
    return any(
        _is_card_number(_SEPARATOR.sub("", found[1])) and not _is_phone_number(text, found)
        for candidate in _CANDIDATES
        for found in candidate.finditer(text)
    )


def _is_phone_number(text: str, found: re.Match[str]) -> bool:
    return text.startswith("+", max(found.start() - 1, 0)) and len(_SEPARATOR.sub("", found[1])) <= _MAX_PHONE_DIGITS


def _is_card_number(digits: str) -> bool:
    return _has_brand(digits) and _is_luhn_valid(digits)


def _has_brand(digits: str) -> bool:
    return any(
        len(digits) in brand.lengths and brand.first <= int(digits[: len(str(brand.first))]) <= brand.last
        for brand in _BRANDS
    )


def _is_luhn_valid(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits divisible by ten."""
    doubled = digits[-2::-2].translate(_DIGIT_SUM_OF_DOUBLE)
    return (sum(map(int, digits[-1::-2])) + sum(map(int, doubled))) % 10 == 0
