"""Identifiers as files have them: text, or the exact digits of a number; not what a spreadsheet made of one."""

import re

from graphql_api.domain.cards import redact_card_numbers
from graphql_api.domain.values import invalid

# Without the plus sign, only as short numbers are written: longer ones are ids of some gateways.
_SCIENTIFIC = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]+)?[Ee]\+[0-9]+|[0-9](?:[.,][0-9]+)?E[0-9]{2})")
_FORMULA = re.compile(r'="[^"]*"')
_ERROR = re.compile(r"##+|#(?:N/A|NAME\?|NULL!|NUM!|REF!|VALUE!|DIV/0!)")  # or a column that was too narrow


def identifier(value: object, name: str) -> str:
    """The text of an identifier; the domain's rules come after this.

    Args:
        value: what a record has
        name: what the identifier is, for the message

    Raises:
        InputError: it is missing, or a spreadsheet or a program destroyed it.
    """
    if type(value) is str:
        if reason := _damage(value):
            raise invalid(f"A spreadsheet {reason}. Export the column as text, and correct {name}.")
        return value
    if type(value) is int:
        return str(value)
    got = f", not {redact_card_numbers(str(value))}" if type(value) is float else ""
    raise invalid(f"{name} is required and must be a string or an integer{got}.")


def _damage(text: str) -> str | None:
    """What a spreadsheet did to a value, if it shows."""
    if text[:1] not in "=#'+-0123456789":
        return None
    if _SCIENTIFIC.fullmatch(text):
        return "wrote this number with an exponent and lost its last digits"
    if text.startswith("'"):
        return "added an apostrophe to this value"
    if _FORMULA.fullmatch(text):
        return 'added ="…" to this value'
    if _ERROR.fullmatch(text):
        return f"replaced this value by {text}"
    return None
