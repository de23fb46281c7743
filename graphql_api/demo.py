"""Demo tokens: the same on every machine and in every run, each with a past that its history tells."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import NAMESPACE_URL, uuid5

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.facts import Facts
from graphql_api.domain.filter import TokenFilter
from graphql_api.domain.token import Action, Changes, DeactivationReason, Edit, Event, Given, Token
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.storage.reads import TokenReader
from graphql_api.storage.tokens import TokenStore

_ACTOR = "demo"
_GATEWAYS = ("STRIPE", "PAYPAL", "ADYEN")
_PREFIXES = {"STRIPE": "cus", "PAYPAL": "payer", "ADYEN": "shopper"}
_REASONS = (DeactivationReason.GATEWAY_DELETED, DeactivationReason.USER_REQUEST, DeactivationReason.FRAUD)
_PLANS = ("free", "silver", "gold")
_BEGIN = datetime(2025, 1, 6, 9, tzinfo=UTC)
_DAY = timedelta(days=1)
_USERS_AT_ONCE = 1000
# Identifiers of letters only: no run of digits in them can look like a card number.
_LETTERS = str.maketrans("0123456789", "ghijklmnop")


async def fill(store: TokenStore, users: int = 100, show: Callable[[int], None] = lambda _: None) -> bool:
    """Store the tokens of `user-1`, `user-2`, … in an empty database; False if demo tokens are there already.

    `show` is called with the number of users who have theirs.

    Raises:
        InputError: other tokens are there.
    """
    return await retry_on_conflict(lambda: _fill(store, users, show))


async def _fill(store: TokenStore, users: int, show: Callable[[int], None]) -> bool:
    async with store.transaction(map(_user, range(1, users + 1))) as transaction:
        stored = await TokenReader(store.pool, transaction).page(TokenFilter(), size=1)
        if stored.tokens:
            _check_is_demo(stored.tokens[0])
            return False
        for first in range(1, users + 1, _USERS_AT_ONCE):
            changes = Changes()
            end = min(first + _USERS_AT_ONCE, users + 1)
            for number in range(first, end):
                _add_user(changes, number)
            await transaction.write(changes, _ACTOR)
            show(end - 1)
    return True


def _check_is_demo(oldest: Token) -> None:
    if oldest.id != _token_id(_user(1), oldest.gateway):
        message = "The database contains other tokens. Demo tokens need an empty database."
        raise InputError([Problem(Code.ALREADY_EXISTS, message)])


def _add_user(changes: Changes, number: int) -> None:
    """One user at one to three gateways, with a different fate at each."""
    for place in range(1 + number % len(_GATEWAYS)):
        gateway = _GATEWAYS[(number + place - 1) % len(_GATEWAYS)]
        born = _BEGIN + timedelta(minutes=place, seconds=10 * number)
        _add_token(changes, _user(number), gateway, born, fate=number + 4 * place)


def _add_token(changes: Changes, user_id: str, gateway: str, born: datetime, fate: int) -> None:
    edit = Edit(
        gateway_customer_id=_customer_id(user_id, gateway, "first"),
        description=Given(f"Demo customer of {user_id}") if fate % 2 else None,
        metadata=Given({"plan": _PLANS[fate % len(_PLANS)], "demo": True}) if fate % 4 else None,
    )
    token = changes.create(tokens.created(_token_id(user_id, gateway), user_id, gateway, edit, born, Action.CREATED))
    if fate % 7 == 0:
        another = Edit(gateway_customer_id=_customer_id(user_id, gateway, "second"))
        token = _change(changes, token, tokens.edited(token, another, born + _DAY))
    if fate % 3 == 0:
        token = _change(changes, token, tokens.reported(token, Facts(exists_at=born + 2 * _DAY), born + 2 * _DAY))
    if fate % 10 == 0:
        reason = _REASONS[fate // 10 % len(_REASONS)]
        _change(changes, token, tokens.deactivated(token, reason, born + 3 * _DAY))


def _change(changes: Changes, token: Token, event: Event | None) -> Token:
    return token if event is None else changes.change(token, event)


def _user(number: int) -> str:
    return f"user-{number}"


def _token_id(user_id: str, gateway: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"demo token:{gateway}:{user_id}"))


def _customer_id(user_id: str, gateway: str, generation: str) -> str:
    digest = sha256(f"{generation}:{gateway}:{user_id}".encode()).hexdigest()
    return f"{_PREFIXES[gateway]}_{digest[:14].translate(_LETTERS)}"
