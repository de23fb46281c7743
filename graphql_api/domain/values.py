"""Parses input into canonical values, or problems that say how to fix it: gateways, ids, descriptions, metadata."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from sys import float_info
from typing import Any, TypeVar, cast
from unicodedata import category
from uuid import UUID

from graphql_api.domain.cards import has_card_number, quoted
from graphql_api.domain.errors import Code, InputError, Problem

MAX_ID_LENGTH = 255  # characters of a user id or of a gateway's customer id
MAX_DESCRIPTION_LENGTH = 2000  # characters
MAX_METADATA_BYTES = 16 * 1024  # of its compact UTF-8 JSON
MAX_AHEAD = timedelta(minutes=5)  # by which another machine's clock may be ahead
MAX_METADATA_DEPTH = 10  # nested objects and arrays, including the root

_MAX_BYTES_PER_CHARACTER = 4  # of JSON for a character of Python's `repr`, which is made faster

# What JavaScript and Python produce when a missing value is put into a string.
_STRINGIFIED_NOTHING = {"undefined", "null", "NaN", "[object Object]"}
_INVISIBLE = {"Cc", "Cf", "Zl", "Zp"}  # Unicode's control and format characters, and separators of lines
# Other characters without a visible glyph: fillers, variation selectors, blank symbols, and what Unicode calls
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt).
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U00016fe4\U0001d159\U000e0000-\U000e0fff]"
)
_GATEWAY = re.compile(r"[A-Z][A-Z0-9_]{0,49}")
_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1  # what JSON libraries keep exactly
_LONGER_THAN_CARD_NUMBERS = 1e19
_IN_METADATA = "Remove it from the metadata."
_TOO_LONG = "Metadata contains a number of more than 64 bits, which would be rounded. Send it as a string."

# These two are what the database driver takes for the infinities.
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_LAST_SECOND = int(_LAST.timestamp())

T = TypeVar("T")
V = TypeVar("V")


class Problems:
    """Collects the problems of one input's fields, so that the caller gets all of them at once."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, code: Code, message: str, *field: str) -> None:
        """Add a problem."""
        self._found.append(Problem(code, message, field))

    def parse(self, field: str, parse: Callable[[V], T], value: V, *place: str) -> T | None:
        """The canonical value; None if it is refused, with its problems added under this field."""
        try:
            return parse(value)
        except InputError as refused:
            self._found += [Problem(problem.code, problem.message, (*place, field)) for problem in refused.problems]
            return None

    @property
    def are_none(self) -> bool:
        """Whether there are no problems."""
        return not self._found

    def refused(self) -> InputError:
        """The exception with every problem."""
        return InputError(self._found)

    def check(self) -> None:
        """Check that there are no problems.

        Raises:
            InputError: there are; it has all of them.
        """
        if self._found:
            raise self.refused()


def gateway(text: str) -> str:
    """The canonical name of a gateway: `" stripe"` and `"STRIPE"` are the same.

    Raises:
        InputError: it is not a valid name.
    """
    name = text.strip().upper()
    if not _GATEWAY.fullmatch(name):
        raise invalid(
            f"{quoted(text)} is not a valid gateway name. A name is a letter followed by up to 49 letters, digits or"
            " underscores, such as STRIPE_EU."
        )
    return name


def user_id(text: str) -> str:
    """A user id to store, unchanged.

    Raises:
        InputError: it is empty, too long, malformed, or text such as `undefined` that a bug produces.
    """
    stored_user_id(text)
    if text in _STRINGIFIED_NOTHING:
        raise invalid(f"The user id is '{text}', which usually means a bug in the calling program. Send the user's id.")
    if text[0].isspace() or text[-1].isspace():
        raise invalid("This user id starts or ends with whitespace. Remove it.")
    if has_invisible(text):
        raise invalid("This user id contains a control or invisible character. Remove it.")
    return text


def stored_user_id(text: str) -> str:
    """A user id to merge or erase, which may have been stored under older rules.

    Raises:
        InputError: it is empty, too long, or malformed.
    """
    if not 1 <= len(text) <= MAX_ID_LENGTH:
        raise invalid(f"A user id must have 1 to {MAX_ID_LENGTH} characters; this one has {len(text)}.")
    return well_formed(text)


def gateway_customer_id(text: str) -> str:
    """A gateway's id for a customer, unchanged.

    Raises:
        InputError: it has a wrong length, white space or unprintable characters.
    """
    if not 1 <= len(text) <= MAX_ID_LENGTH:
        raise invalid(f"A gateway customer id must have 1 to {MAX_ID_LENGTH} characters; this one has {len(text)}.")
    if not text.isprintable() or " " in text or has_invisible(text):
        raise invalid("A gateway customer id may contain only printable characters and no whitespace.")
    return text


def description(text: str | None, what: str = "description") -> str | None:
    """A note for people; `what` names it in the refusal.

    Raises:
        InputError: it is too long, not text, or contains a card number.
    """
    if text is None:
        return None
    if len(text) > MAX_DESCRIPTION_LENGTH:
        raise invalid(f"A {what} can have at most {MAX_DESCRIPTION_LENGTH} characters; this one has {len(text)}.")
    return without_card_number(well_formed(text), f"Remove it from the {what}.")


def metadata(value: Any) -> dict[str, Any] | None:
    """A JSON object for programs.

    Raises:
        InputError: it is not an object, too large, too deep, not well-formed JSON, or contains a card number.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid('Metadata must be a JSON object, such as {"plan": "gold"}.')
    characters = 0
    for leaf in _leaves(cast("dict[str, Any]", value), MAX_METADATA_DEPTH):
        characters += len(leaf) if isinstance(leaf, str) else _digits(leaf) if isinstance(leaf, float) else 1
        if characters > MAX_METADATA_BYTES:  # before the rest is examined
            raise invalid(f"Metadata can have at most {MAX_METADATA_BYTES:,} bytes of JSON; this has more.")
        _check_leaf(leaf)
    if len(repr(value)) * _MAX_BYTES_PER_CHARACTER > MAX_METADATA_BYTES:
        size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        if size > MAX_METADATA_BYTES:
            raise invalid(f"Metadata can have at most {MAX_METADATA_BYTES:,} bytes of JSON; this has {size:,}.")
    return cast("dict[str, Any]", value)


def token_id(text: str) -> str | None:
    """The canonical form of a token's id; None if it is not a UUID (RFC 9562), so that no token can have it.

    Upper case is the same id (RFC 9562, section 4). Braces, `urn:uuid:` and digits without hyphens are not.

    Raises:
        InputError: it is malformed text.
    """
    try:
        printed = str(UUID(well_formed(text)))
    except ValueError:
        return None
    return printed if printed == text.lower() else None


def instant(value: object) -> datetime:
    """An instant in UTC.

    Raises:
        InputError: it is not ISO 8601, has no offset, or is outside the years 1 to 9999 in UTC.
    """
    try:
        parsed = datetime.fromisoformat(value if isinstance(value, str) and is_well_formed(value) else "")
        if parsed.tzinfo is not None and _FIRST < (inside := parsed.astimezone(UTC)) < _LAST:
            return inside
    except (ValueError, OverflowError):
        pass
    raise invalid("A time must be ISO 8601 with a UTC offset, such as 2026-11-22T17:28:02Z.")


def second(number: object) -> datetime:
    """The instant at this number of seconds since 1970 (Unix time), as gateways date events.

    Later instants than the last one that can be represented become that one, which is too far ahead for every caller.

    Raises:
        InputError: the number is not whole, or negative.
    """
    if isinstance(number, int | float) and not isinstance(number, bool):
        if number >= _LAST_SECOND:  # our reader of JSON makes floats of the largest integers
            return _LAST
        if isinstance(number, int) and number >= 0:
            return datetime.fromtimestamp(number, UTC)
    raise invalid("A time in seconds must be a whole number and not negative.")


def check_not_ahead(at: datetime | None, now: datetime) -> None:
    """Check that a time is not in the future, with a tolerance for clocks that differ.

    Raises:
        InputError: it is in the future.
    """
    if at is not None and at > now + MAX_AHEAD:
        raise invalid(
            "This time is more than five minutes in the future. Send the time of the event, and check the sender's"
            " clock."
        )


def is_well_formed(text: str) -> bool:
    """Whether PostgreSQL can store this text: no NUL character, no lone surrogate."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))


def has_invisible(text: str) -> bool:
    """Whether this text has control characters or others that cannot be seen, besides spaces."""
    if text.isascii():
        return not text.isprintable()
    return bool(_BLANK.search(text)) or any(category(character) in _INVISIBLE for character in text)


def can_be_an_id(text: str) -> bool:
    """Whether a user or a gateway customer can have this id."""
    return len(text) <= MAX_ID_LENGTH and is_well_formed(text)


def well_formed(text: str) -> str:
    """Text that PostgreSQL can store, unchanged.

    Raises:
        InputError: it contains a NUL character or a lone surrogate.
    """
    if not is_well_formed(text):
        raise invalid("This text contains a NUL character or a lone surrogate. Send well-formed Unicode.")
    return text


def without_card_number(text: str, advice: str = "Send the gateway's customer id.") -> str:
    """The text itself; `advice` ends the refusal.

    Raises:
        InputError: it contains a payment card number.
    """
    if has_card_number(text):
        message = f"This looks like a payment card number. Never send one. {advice}"
        raise InputError([Problem(Code.CARD_NUMBER, message)])
    return text


def invalid(message: str) -> InputError:
    """The error of one value that breaks a rule, for the caller to raise."""
    return InputError([Problem(Code.INVALID, message)])


def _leaves(container: dict[str, Any] | list[Any], depth: int) -> Iterator[Any]:
    """Every key, and every value that is not an object or array."""
    if depth == 0:
        raise invalid(f"Metadata can nest at most {MAX_METADATA_DEPTH} objects and arrays deep.")
    if isinstance(container, dict):
        yield from container
        children = container.values()
    else:
        children = container
    for child in children:
        if isinstance(child, dict | list):
            yield from _leaves(cast("dict[str, Any] | list[Any]", child), depth - 1)
        else:
            yield child


def _is_as_sent(number: float) -> bool:
    """Whether this cannot be a long integer that a JSON parser rounded to a double.

    Doubles keep every number of 15 digits; what was rounded has more.
    """
    return isfinite(number) and float(f"{number:.{float_info.dig}g}") == number


def _digits(number: float) -> int:
    """The number of characters that PostgreSQL stores and returns at least: it writes 1e300 as 301 digits."""
    _, _, exponent = repr(number).partition("e")
    return abs(int(exponent)) if exponent else 1


def _check_leaf(leaf: Any) -> None:
    if isinstance(leaf, str):
        without_card_number(well_formed(leaf), _IN_METADATA)
    elif isinstance(leaf, float):
        if not _LEAST_INTEGER < leaf <= _GREATEST_INTEGER and not _is_as_sent(leaf):
            raise invalid(_TOO_LONG)
        if abs(leaf) < _LONGER_THAN_CARD_NUMBERS:
            without_card_number(str(int(leaf)), _IN_METADATA)
    elif isinstance(leaf, int) and not isinstance(leaf, bool):
        if not _LEAST_INTEGER <= leaf <= _GREATEST_INTEGER:
            raise invalid(_TOO_LONG)
        without_card_number(str(leaf), _IN_METADATA)
