"""Customers that have other identifiers since an account moved: each old one becomes a former one of its user."""

from collections.abc import AsyncGenerator, Iterator
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Final

from graphql_api.bulk.identifiers import identifier
from graphql_api.bulk.records import Line, Record, Tally, Unreadable
from graphql_api.domain import values
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.inputs import Gateways, Save
from graphql_api.domain.token import Edit
from graphql_api.domain.values import Problems
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.saving import BatchSaver
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.reads import Pair
from graphql_api.storage.tokens import MAX_BULK_LOCKS, TokenStore

ACTOR = "remap"
MAX_CHUNK_LINES: Final = MAX_BULK_LOCKS // 2  # each has a user and a new customer


async def remap(
    store: TokenStore,
    gateways: Gateways,
    gateway: str,
    records: Iterator[Line],
    *,
    dry_run: bool,
    max_lines: int = MAX_CHUNK_LINES,
) -> AsyncGenerator[Tally]:
    """Replace each record's `old` identifier by its `new` one, at most `max_lines` in a transaction.

    In a dry run each chunk is written and rolled back: a line counts for the later lines of its chunk only.
    """
    while lines := list(islice(records, max_lines)):
        yield await retry_on_conflict(partial(_write, store, gateways, gateway, lines, dry_run=dry_run), max_seconds=60)


async def _write(store: TokenStore, gateways: Gateways, gateway: str, lines: list[Line], *, dry_run: bool) -> Tally:
    tally = Tally(lines[-1][0])
    pairs: dict[int, Pair] = {}
    read = dict(lines)
    for number, record in lines:
        try:
            pairs[number] = _parse(gateways, gateway, record)
        except InputError as refused:
            tally.reject(number, refused, record)
    old = [(gateway, old) for old, _ in pairs.values()]
    new = [(gateway, new) for _, new in pairs.values()]
    users = set((await store.customers(old)).owners.values())
    async with store.transaction(users, customers=new, dry_run=dry_run) as transaction:
        # The tokens first: a change of one holds it until the customers that come with it are there, too.
        stored = await transaction.lock_at((user, gateway) for user in users)
        customers = await transaction.customers([*old, *new])
        if not users.issuperset(customers.owners[customer] for customer in old if customer in customers.owners):
            raise ConflictError
        batch = BatchSaver(now=await transaction.now(), stored=stored, customers=customers, erased=set())
        for number, (before, after) in pairs.items():
            try:
                is_changed = _replace(batch, gateway, before, after)
            except InputError as refused:
                tally.reject(number, refused, read[number])
            else:
                tally.changed += is_changed
                tally.unchanged += not is_changed
        await transaction.write(batch.changes, ACTOR)
    tally.rejected.sort(key=attrgetter("line"))
    return tally


def _parse(gateways: Gateways, gateway: str, record: Record | Unreadable) -> Pair:
    if isinstance(record, Unreadable):
        raise InputError([record.problem])
    problems = Problems()
    # An old identifier may have been stored before today's rules of this gateway.
    old = problems.parse(
        "old", lambda value: values.gateway_customer_id(identifier(value, "old id")), record.get("old")
    )
    new = problems.parse(
        "new", lambda value: gateways.customer_id(gateway, identifier(value, "new id")), record.get("new")
    )
    if old is None or new is None:
        raise problems.refused()
    return old, new


def _replace(batch: BatchSaver, gateway: str, old: str, new: str) -> bool:
    """Whether this replaced the identifier, which may have been done before.

    Raises:
        InputError: NOT_FOUND, ALREADY_EXISTS or CUSTOMER_TAKEN.
    """
    user_id = batch.owners.get((gateway, old), "")
    token = batch.stored.get((user_id, gateway))
    if token is None:
        raise _refused(Code.NOT_FOUND, f"No token has this customer at {gateway}.", "old")
    if token.gateway_customer_id != old:
        if batch.owners.get((gateway, new)) == user_id:
            return False
        raise _refused(Code.ALREADY_EXISTS, f"Its user now has the customer {token.gateway_customer_id}.", "old")
    result = batch.save(Save(user_id=user_id, gateway=gateway, edit=Edit(gateway_customer_id=new), replaces=old))
    if isinstance(result, InputError):
        raise InputError(
            [Problem(each.code, _ADVICE.get(each.code, each.message), ("new",)) for each in result.problems]
        )
    return result.token is not token


_ADVICE = {
    Code.CUSTOMER_TAKEN: "The new customer belongs, or belonged, to another user. Correct the new id.",
}


def _refused(code: Code, message: str, field: str) -> InputError:
    return InputError([Problem(code, message, (field,))])
