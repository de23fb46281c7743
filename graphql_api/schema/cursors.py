"""Opaque cursors: the position of an item in its list."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

from graphql_api.domain.errors import BadInputError, InputError
from graphql_api.domain.filter import FeedPosition
from graphql_api.domain.token import Token
from graphql_api.domain.values import is_well_formed, token_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_POSITION = re.compile(
    "(?P<timeline>[0-9A-F]{1,8}(-[0-9a-f]{8})?):(?P<position>0|[1-9][0-9]{0,18})(:(?P<pruning>[1-9][0-9]{0,18}))?"
)
_VERSION = re.compile("[1-9][0-9]{0,9}")


def of_token(token: Token) -> str:
    """Where a token stands in the order of making."""
    return _encode(f"token:{(token.created_at - _EPOCH) // _MICROSECOND}:{token.id}")


def to_token(cursor: str) -> tuple[datetime, str]:
    """When the token at this cursor was made, and its id.

    Raises:
        BadInputError: the cursor is not ours.
    """
    try:
        kind, microseconds, text = _decode(cursor).split(":")
        token = token_id(text)
        if token is not None and (kind, microseconds, text) == ("token", str(int(microseconds)), token):
            return _EPOCH + int(microseconds) * _MICROSECOND, token
    except (ValueError, OverflowError, InputError):
        pass
    raise of_another(cursor)


def of_event(token_id: str, version: int) -> str:
    """Where a line stands in a token's history."""
    return _encode(f"event:{token_id}:{version}")


def to_event(cursor: str) -> tuple[str, int]:
    """The id of the token whose history has this cursor, and the version at it.

    Raises:
        BadInputError: the cursor is not ours.
    """
    kind, _, place = _decode(cursor).partition(":")
    token, _, version = place.partition(":")
    if kind == "event" and _VERSION.fullmatch(version) and int(version) < 2**31:
        return token, int(version)
    raise of_another(cursor)


def of_position(position: FeedPosition) -> str:
    """A position in the change feed."""
    pruning = f":{position.pruning}" if position.pruning else ""
    return _encode(f"feed:{position.timeline}:{position.position}{pruning}")


def to_position(cursor: str) -> FeedPosition:
    """The position at this cursor.

    Raises:
        BadInputError: the cursor is not ours.
    """
    kind, _, rest = _decode(cursor).partition(":")
    found = _POSITION.fullmatch(rest)
    if kind == "feed" and found and int(found["position"]) < 2**63:
        return FeedPosition(found["timeline"], int(found["position"]), int(found["pruning"] or 0))
    raise of_another(cursor)


def of_erasure(erased_at: datetime, gateway: str, customer: str) -> str:
    """Where a customer stands in the list of those to be deleted at their gateways."""
    return _encode(f"erasure:{(erased_at - _EPOCH) // _MICROSECOND}:{gateway}:{customer}")


def to_erasure(cursor: str) -> tuple[datetime, str, str]:
    """The position at this cursor.

    Raises:
        BadInputError: the cursor is not ours.
    """
    try:
        kind, microseconds, gateway, customer = _decode(cursor).split(":", 3)
        if kind == "erasure" and microseconds == str(int(microseconds)) and is_well_formed(gateway + customer):
            return _EPOCH + int(microseconds) * _MICROSECOND, gateway, customer
    except (ValueError, OverflowError):
        pass
    raise of_another(cursor)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise of_another(cursor) from None
    if _encode(text) != cursor:
        raise of_another(cursor)
    return text


def of_another(cursor: str) -> BadInputError:
    """The refusal of a cursor of another list."""
    return BadInputError(f"{cursor[:80]!r} is not a cursor of this list. Use one from a page's pageInfo or edges.")
