"""Finds a payment card number in text: a known brand's prefix and length whose last digit is the right check digit."""

import re
from typing import NamedTuple

# Digits joined by single spaces or hyphens are one run; a run counts as a whole or not at all. An international phone
# number begins with a plus sign. A word with digits elsewhere too, such as a hash, is an identifier.
_RUN = re.compile(r"\+?[0-9](?:[ -]?[0-9]){12,}")
_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
_SHORTEST, _LONGEST = 13, 19


class _Brand(NamedTuple):
    """The numbers that a card network issues: from … to, as prefixes of equal length, and how many digits they have."""

    first: int
    last: int
    lengths: frozenset[int]


def _brand(first: int, last: int | None = None, *, lengths: range | tuple[int, ...]) -> _Brand:
    return _Brand(first, first if last is None else last, frozenset(lengths))


# ISO/IEC 7812 issuer identification numbers as the networks publish them.
_BRANDS = (
    _brand(4, lengths=(13, 16, 19)),  # Visa
    _brand(51, 55, lengths=(16,)),  # Mastercard
    _brand(2221, 2720, lengths=(16,)),  # Mastercard since 2017
    _brand(34, lengths=(15,)),  # American Express
    _brand(37, lengths=(15,)),
    _brand(6011, lengths=range(16, 20)),  # Discover
    _brand(644, 649, lengths=range(16, 20)),
    _brand(65, lengths=range(16, 20)),
    _brand(300, 305, lengths=range(14, 20)),  # Diners Club
    _brand(3095, lengths=range(14, 20)),
    _brand(36, lengths=range(14, 20)),
    _brand(38, 39, lengths=range(14, 20)),
    _brand(3528, 3589, lengths=range(16, 20)),  # JCB
    _brand(62, lengths=range(16, 20)),  # UnionPay
    _brand(81, lengths=range(16, 20)),
)


def has_card_number(text: str) -> bool:
    """Whether a whole run of digits in the text is a card number; single spaces and hyphens join digits."""
    if _RUN.search(text) is None:
        return False
    text = _UUID.sub("_", text)
    return any(
        _is_card_number(re.sub("[ -]", "", run[0])) and not _goes_on(text, run.start(), run.end())
        for run in _RUN.finditer(text)
    )


def _goes_on(text: str, start: int, end: int) -> bool:
    """Whether what touches a run of digits leads to more digits: letters as in a hash, or a point as in 0.5."""
    while start and (text[start - 1].isalpha() or text[start - 1] == "."):
        start -= 1
    while end < len(text) and text[end].isalpha():
        end += 1
    return text[start - 1 : start].isdigit() or text[end : end + 1].isdigit()


def _is_card_number(digits: str) -> bool:
    return digits[0] != "+" and _SHORTEST <= len(digits) <= _LONGEST and _is_luhn_valid(digits) and _has_brand(digits)


def _has_brand(digits: str) -> bool:
    return any(
        len(digits) in brand.lengths and brand.first <= int(digits[: len(str(brand.first))]) <= brand.last
        for brand in _BRANDS
    )


def _is_luhn_valid(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits divisible by ten."""
    doubled = (sum(divmod(int(digit) * 2, 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0
