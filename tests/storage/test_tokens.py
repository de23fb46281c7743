"""The store on its own: what two transactions do to each other."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime

import asyncpg
import orjson
import pytest
from uuid_utils import uuid7

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.domain.facts import Facts
from graphql_api.domain.token import Action, Changes, Edit, created, reported
from graphql_api.schema.scalars import written
from graphql_api.service import merging
from graphql_api.storage import selects
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore, _Change

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
async def store(empty_database):
    """The store, on a pool that waits for transactions of thousands of rows, as that of bulk commands does."""
    async with ConnectionPool.open(empty_database, timeout=60, watches=False) as database:
        yield TokenStore(database)


def new_tokens(users, customer):
    changes = Changes()
    for user in users:
        edit = Edit(gateway_customer_id=customer.format(user))
        changes.create(created(str(uuid7()), user, "STRIPE", edit, NOW, Action.CREATED))
    return changes


@pytest.mark.parametrize("customer", ["cus_{}", "of its own"])
async def test_two_that_write_the_same_in_opposite_order_wait_for_each_other_and_one_wins(store, deadlocks, customer):
    users = [f"u{number:04}" for number in range(4000)]

    async def write(number, order):
        async with store.transaction(users) as transaction:
            own = f"{{}}_{number}" if customer == "of its own" else customer
            await transaction.write(new_tokens(order, own), "a-test")

    outcomes = await asyncio.gather(write(1, users), write(2, users[::-1]), return_exceptions=True)
    assert sorted(map(type, outcomes), key=str) == [type(None), ConflictError]
    assert deadlocks == []


async def test_reserving_customer_ids_and_locking_them_wait_for_each_other(store, deadlocks):
    """The orders of gateways and of customer ids are opposite."""
    identifiers = {(f"G{number:04}", f"cus_{4000 - number:04}"): "u1" for number in range(4000)}

    async def reserve():
        async with store.transaction([]) as transaction:
            await transaction.reserve(identifiers)

    async def lock():
        async with store.transaction([]) as transaction:
            await transaction.lock_customers(list(identifiers))

    async def erase():
        async with store.transaction([]) as transaction:
            await transaction.lock_identifiers_of("u1")

    await reserve()
    for other in (lock, erase):
        await asyncio.gather(*(run() for run in (reserve, other) * 3))
    assert deadlocks == []


async def test_a_merge_and_reports_on_former_customer_ids_wait_for_each_other(store, deadlocks):
    """The token has the last customer id, and a merge moves all of them."""
    identifiers = {("STRIPE", f"cus_{number:04}"): "u1" for number in range(4000)}

    async def merge(source, target):
        async with store.transaction([source, target], exclusive=True) as transaction:
            asked = merging.Merge(source, target, merging.KEEP_TARGET)
            await merging._merge(transaction, "a-test", asked, await transaction.now())

    async def report():
        async with store.transaction([]) as transaction:
            await transaction.lock_customers(list(identifiers))

    async with store.transaction(["u1"]) as transaction:
        await transaction.reserve(identifiers)
        await transaction.write(new_tokens(["u1"], "cus_3999"), "a-test")
    for source, target in (("u1", "u2"), ("u2", "u1")) * 3:
        await asyncio.gather(merge(source, target), *(report() for _ in range(3)))
    assert deadlocks == []


async def test_changes_of_many_tokens_and_locks_on_them_wait_for_each_other(store, deadlocks):
    """The younger a token, the smaller its user's id: the orders of both are opposite."""
    users = [f"u{number:04}" for number in range(4000)]
    async with store.transaction(users) as transaction:
        await transaction.write(new_tokens(users[::-1], "cus_{}"), "a-test")
        tokens = await transaction.lock_of(users)
    pairs = [(user, "STRIPE") for user in users]
    changes = [_Change(token, reported(token, Facts(gone_at=NOW), NOW), "a-test", 1) for token in tokens]

    async def lock():
        async with store.transaction(users) as transaction:
            await transaction.lock_at(pairs)
            await transaction.lock_of(users)

    made, *_ = await asyncio.gather(
        store._change(changes), lock(), store._change(changes[::-1]), lock(), return_exceptions=True
    )
    assert isinstance(made, asyncpg.LockNotAvailableError) or len(made) in {0, 4000}
    assert deadlocks == []


async def test_what_is_reserved_for_one_user_is_no_others_although_no_token_has_it(store, connection):
    async with store.transaction(["u1"]) as transaction:
        await transaction.reserve({("STRIPE", "cus_u2"): "u1"})

    async def write():
        async with store.transaction(["u2"]) as transaction:
            await transaction.write(new_tokens(["u2"], "cus_{}"), "a-test")

    with pytest.raises(ConflictError):
        await write()
    assert await connection.fetchval("select count(*) from customer_gateway_tokens") == 0


@pytest.mark.parametrize("kind", ["a statement whose answer was lost", "a statement", "a transaction"])
async def test_a_mutation_that_changed_something_is_not_unchanged_whatever_its_next_step_says(
    by_tcp, empty_database, kind
):
    """A verification, which writes no history."""
    proxy, way = by_tcp
    async with ConnectionPool.open(way(empty_database)) as pool:
        store = TokenStore(pool)
        async with store.transaction(["u1"]) as transaction:
            await transaction.write(new_tokens(["u1"], "cus_{}"), "a-test")
            [token] = await transaction.lock_of(["u1"])

        async def verify():
            if kind == "a transaction":
                async with store.transaction([], customers=[("STRIPE", "cus_1")], exclusive=True):
                    pass
            else:
                await store.change(token, reported(token, Facts(exists_at=NOW), NOW), "a-test")

        async def mutate():
            with deadline.until(asyncio.get_running_loop().time() + 60):
                with pytest.raises(ConflictError) if loses else nullcontext():
                    await verify()
                raise UnchangedError

        loses = kind.endswith("lost")
        proxy.loses = lambda statement: loses and b'"new_version":' in statement and not proxy.lost
        with pytest.raises(UnavailableError, match="may already have been made"):
            await mutate()
        assert proxy.lost == loses


OUR_ADVISORY_LOCKS = """
select count(*) from pg_locks join pg_database on oid = database
where locktype = 'advisory' and datname = current_database()
"""


async def test_the_lock_on_many_users_takes_few_locks(store, connection):
    async with store.transaction(f"u{number}" for number in range(5000)):
        assert 0 < await connection.fetchval(OUR_ADVISORY_LOCKS) <= 1024


async def test_a_transaction_that_fails_leaves_nothing(store, connection):
    async def fail():
        async with store.transaction(["u1"]) as transaction:
            await transaction.write(new_tokens(["u1"], "cus_{}"), "a-test")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    for table in ("customer_gateway_tokens", "gateway_customers", "customer_gateway_token_events"):
        assert await connection.fetchval(f"select count(*) from {table}") == 0  # noqa: S608


@pytest.mark.parametrize("users", [[], ["u1"], ["\1"], ["u1", "\1\2", "\2\3"]])
async def test_users_are_found_whatever_is_in_their_ids(store, users):
    async with store.transaction(users) as transaction:
        await transaction.write(new_tokens(users, "cus_{}"), "a-test")
    assert {*await store.of_users([*users])} == {*users}
    assert {*await store.of_users_as_json([*users], (("id", "id", None),))} == {*users}


PLAIN = sorted(name for name in selects.ALL if name not in {"description", "metadata"})


@pytest.mark.parametrize("copies", [1, 12])
@pytest.mark.parametrize("options", [{}, {"prepares": False}])
async def test_json_of_the_database_says_what_the_rows_say(empty_database, options, copies):
    """With copies there are many parts to put together; without a session of its own times may be Nepal's."""
    url = f"{empty_database}{'&' if '?' in empty_database else '?'}timezone=Asia/Kathmandu"
    async with ConnectionPool.open(url, **options) as database:
        await compare_json(TokenStore(database), copies)


async def compare_json(store, copies):
    at = [NOW, NOW.replace(microsecond=120), NOW.replace(year=1, microsecond=999999), NOW.replace(year=9999)]
    changes = Changes()
    for number, text in enumerate(('"', "\\", "\b\x7f\x1f", "ä😀", "</script>'%s:name")):
        edit = Edit(gateway_customer_id=f"cus_{number}{text}", is_active=bool(number % 2))
        for gateway in ("STRIPE", "ADYEN"):
            user = f"user {text}\u2028\1"
            changes.create(created(str(uuid7()), user, gateway, edit, at[number % len(at)], Action.CREATED))
    users = [*{token.user_id for token in changes.created.values()}, "somebody else"]
    async with store.transaction(users) as transaction:
        await transaction.write(changes, "a-test")

    fields = [(f"{name}_{copy}", name, None) for copy in range(copies) for name in PLAIN]
    texts = await store.of_users_as_json(users, (*fields, ("__typename", None, "Token")))
    read = await store.of_users(users)
    assert len(read) == 5
    assert {user: orjson.loads(text) for user, text in texts.items()} == {
        user: [{key: as_json(token, name) for key, name, _ in fields} | {"__typename": "Token"} for token in tokens]
        for user, tokens in read.items()
    }


def as_json(token, name):
    value = getattr(token, name)
    return written(value) if isinstance(value, datetime) else value
