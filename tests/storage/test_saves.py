"""What the database decides of a save is what the domain would, and a second run of it changes nothing."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import product

import asyncpg
import pytest
from uuid_utils import uuid7

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.domain.inputs import Save
from graphql_api.domain.token import Action, Changes, Edit, Event, Given, Token, edited
from graphql_api.storage import clock
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.clock import DatabaseClock
from graphql_api.storage.connection import Connection
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.saves import SAVE, SaveRequest
from graphql_api.storage.statements import CHANGE
from graphql_api.storage.tokens import TokenStore
from tests.conftest import CITUS

THEN = datetime(2026, 11, 22, tzinfo=UTC)
NOW = THEN + timedelta(seconds=1)
STORED = [
    {"description": description, "metadata": metadata, **state}
    for description, metadata, state in product(
        (None, "a"),
        (None, {"a": 1}),
        (
            {},
            {"is_active": False, "deactivated_at": THEN, "deactivation_reason": "OTHER"},
            {"is_active": False, "deactivated_at": THEN, "deactivation_reason": "GATEWAY_DELETED"},
        ),
    )
]
EDITS = [
    {"description": description, "metadata": metadata, "is_active": is_active}
    for description, metadata, is_active in product(
        (None, Given(None), Given("a"), Given("b")),
        (None, Given(None), Given({"a": 1.0}), Given({"a": True})),
        (None, True, False),
    )
]
TEXT = {"description": Given("b")}
# The edit, the save, and its time.
SAVES = [
    *((edit, {}, NOW) for edit in EDITS),
    *((TEXT | {"gateway_customer_id": "another"}, {"replaces": replaces}, NOW) for replaces in (None, "cus")),
    *((TEXT, {"expected_version": version}, NOW) for version in (1, 2)),
    *((TEXT, {}, THEN + timedelta(microseconds=late)) for late in (-1, 0, 1)),
]


in_one_statement = pytest.mark.skipif(
    bool(CITUS), reason="in a distributed database, the first statement of a save only reads; `CHANGE` makes the change"
)


@pytest.fixture
async def store(empty_database):
    async with ConnectionPool.open(empty_database) as database:
        yield TokenStore(database)


@in_one_statement
async def test_the_database_decides_as_the_domain_does(store, connection):
    changes, requests = Changes(), {}
    for number, (stored, (edit, save, at)) in enumerate(product(STORED, SAVES)):
        token = Token(str(uuid7()), f"u{number}", "STRIPE", f"cus_{number}", THEN, THEN, THEN, **stored)
        changes.create(Event(token, Action.CREATED))
        wanted = Edit(**{"gateway_customer_id": token.gateway_customer_id} | edit)
        requests[SaveRequest(Save(token.user_id, token.gateway, wanted, **save), at, "a-test", number)] = token
    async with store.transaction([]) as transaction:
        await transaction.write(changes, "a-test")

    found = await store._save(list(requests))
    expected = {request: after(request, token) for request, token in requests.items()}
    assert {request: (each.token, each.is_saved) for request, each in found.items()} == expected
    lines = await connection.fetch(
        "select token_id::text, version, at, reason, actor, is_active, call_id from customer_gateway_token_events"
        " where action = 'UPDATED' order by token_id"
    )
    saved = {request.call_id: token for request, (token, is_saved) in expected.items() if is_saved}
    assert 100 < len(saved) < len(requests) - 100
    assert [(*line,) for line in lines] == [
        (token.id, 2, token.updated_at, None, "a-test", token.is_active, call_id) for call_id, token in saved.items()
    ]

    again = await store._save(list(requests))
    assert {request: (each.token, each.is_saved) for request, each in again.items()} == {
        request: (token, False) for request, (token, _) in expected.items()
    }


def after(request, token):
    """The token after this save, and whether the save needs no more than one statement."""
    event = edited(token, request.save.edit, request.at)
    is_expected = request.save.expected_version in {None, token.version}
    if event and event.action is Action.UPDATED and is_expected and request.at > token.updated_at:
        return event.token, True
    return token, False


OTHERS = "update customer_gateway_tokens set version = 3, updated_at = now() + interval '1 s'"
DELETED = """
with gone as (delete from customer_gateway_tokens returning user_id, id)
insert into departed_tokens (user_id, token_id) select * from gone
"""


@in_one_statement
@pytest.mark.parametrize(("meanwhile", "version"), [("select", 2), (OTHERS, 3), (DELETED, None)])
async def test_a_save_whose_answer_was_lost_is_found_whatever_happened_meanwhile(
    store, connection, monkeypatch, meanwhile, version
):
    token = Token(str(uuid7()), "u1", "STRIPE", "cus_1", THEN, THEN, THEN)
    await create(store, token)
    fetch, lost = Connection.fetch, []

    async def lose_the_first(self, statement, *arguments):
        rows = await fetch(self, statement, *arguments)
        if statement is SAVE and not lost:
            lost.append(rows)
            await connection.execute(meanwhile)
            raise asyncpg.ConnectionDoesNotExistError
        return rows

    monkeypatch.setattr(Connection, "fetch", lose_the_first)
    save = Save("u1", "STRIPE", Edit("cus_1", description=Given("a")), expected_version=1)
    if version is None:
        with pytest.raises(UnavailableError, match="deleted since"):
            await store.save(save, "a-test")
    else:
        found = await store.save(save, "a-test")
        assert (found.is_saved, found.token.version, found.token.description) == (True, version, "a")
    assert len(lost) == 1
    assert await connection.fetchval("select count(*) from customer_gateway_token_events where action = 'UPDATED'") == 1


async def create(store, *created):
    changes = Changes()
    for token in created:
        changes.create(Event(token, Action.CREATED))
    async with store.transaction([]) as transaction:
        await transaction.write(changes, "a-test")
    await store.read_at(created[0].user_id, created[0].gateway)  # says the time


async def save_text(store):
    return (await store.save(Save("u1", "STRIPE", Edit("cus_1", description=Given("a"))), "a-test")).is_saved


async def change_text(store):
    token, now, _ = await store.read_at("u1", "STRIPE")
    try:
        await store.change(token, edited(token, Edit(description=Given("a")), now), "a-test")
    except ConflictError:
        return False
    return True


@pytest.fixture
async def other(empty_database):
    """The store of another process."""
    async with ConnectionPool.open(empty_database) as database:
        yield TokenStore(database)


@pytest.fixture
def losing(monkeypatch):
    """Has the first change do this with its statement and arguments instead, and lose its connection.

    Answers an event that is set once a lock refused a later one.
    """
    fetch, lost, refused = Connection.fetch, [], asyncio.Event()

    def lose(instead):
        async def lose_the_first(self, statement, *arguments):
            if statement.reads is None and not lost:
                lost.append(statement)
                await instead(statement, *arguments)
                raise asyncpg.ConnectionDoesNotExistError
            try:
                return await fetch(self, statement, *arguments)
            except asyncpg.LockNotAvailableError:
                refused.set()
                raise

        monkeypatch.setattr(Connection, "fetch", lose_the_first)
        return refused

    return lose


BOTH_WAYS = pytest.mark.parametrize("change", [pytest.param(save_text, marks=in_one_statement), change_text])


@BOTH_WAYS
async def test_a_call_is_not_taken_for_that_of_another_process(store, other, monkeypatch, losing, change):
    """Both make the same change of the same user as the same actor; by a clock that went back, at the same time."""
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await create(store, Token(str(uuid7()), "u1", "STRIPE", "cus_1", ahead, ahead, ahead))
    monkeypatch.setattr(DatabaseClock, "now", lambda _: ahead + timedelta(microseconds=1))
    made = []

    async def let_the_other_make_it(*_):
        made.append(await change(other))

    losing(let_the_other_make_it)
    made.append(await change(store))
    assert made == [True, False]


def begun_elsewhere(other, late, ended):
    """For `losing`: has another connection begin the change, and commit it only once this has ended."""

    async def begin(statement, *arguments):
        locked = asyncio.Event()

        async def commit_late():
            async with other.pool.transaction() as transaction:
                await transaction.fetch(statement, *arguments)
                locked.set()
                await ended()

        late.append(asyncio.create_task(commit_late()))
        await locked.wait()

    return begin


@BOTH_WAYS
async def test_a_change_waits_for_what_its_lost_connection_still_does(store, other, losing, change):
    """Its lock is taken for another's otherwise, and its own change then for that of a faster caller."""
    await create(store, Token(str(uuid7()), "u1", "STRIPE", "cus_1", THEN, THEN, THEN))
    late = []
    refused = losing(begun_elsewhere(other, late, lambda: refused.wait()))  # noqa: PLW0108 - it is bound later
    assert await change(store)
    await late[0]


@BOTH_WAYS
async def test_a_change_that_a_lost_connection_may_make_is_not_said_to_have_changed_nothing(
    store, other, losing, change
):
    """Although no turn is left in which its user's lock could be waited for."""
    await create(store, Token(str(uuid7()), "u1", "STRIPE", "cus_1", THEN, THEN, THEN))
    late, ended = [], asyncio.Event()
    losing(begun_elsewhere(other, late, ended.wait))
    async with AsyncExitStack() as stack:
        while not store._slow_calls.is_full:
            await stack.enter_async_context(store._slow_calls)
        await stack.enter_async_context(store._slow_turns.places(["u1"]))
        until = asyncio.get_running_loop().time() + 60
        with pytest.raises(UnavailableError, match="may already have been made"), deadline.until(until):
            await change(store)
    ended.set()
    await late[0]


@in_one_statement
async def test_a_save_of_texts_takes_one_statement_once_the_time_is_known(graph, statements):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    before = len(statements)
    changed = await graph.saved("u1", "STRIPE", "cus_1", description="a", metadata={"a": 1}, expectedVersion=1)
    assert statements[before:-1] == [SAVE.sql]  # the last one is for the former customer ids in the answer
    assert changed == token | {
        "description": "a",
        "metadata": {"a": 1},
        "version": 2,
        "updatedAt": changed["updatedAt"],
    }
    assert changed["updatedAt"] > token["updatedAt"]


def test_the_time_lies_within_what_is_known(monkeypatch):
    seconds = [1000.0]
    monkeypatch.setattr(clock, "time", lambda: seconds[0])
    known = DatabaseClock()
    assert known.now() is None
    for ahead in (30.0, 31.0, -5.0):
        asked_at, seconds[0] = seconds[0], seconds[0] + 0.01
        known.set(datetime.fromtimestamp(asked_at + ahead, UTC), asked_at)
        assert ahead - 0.011 < known.now().timestamp() - seconds[0] < ahead + 0.001
    seconds[0] += 4
    assert known.now() is not None
    for late in (5, -10):
        seconds[0] += late
        assert known.now() is None


@pytest.mark.parametrize("changing", [save_text, change_text])
async def test_a_change_whose_answer_was_lost_before_its_user_was_erased_is_not_called_refused(
    store, connection, monkeypatch, changing
):
    """Erasing left nothing by which to find out whose change it was."""
    await create(store, Token(str(uuid7()), "u1", "STRIPE", "cus_1", THEN, THEN, THEN))
    fetch, lost = Connection.fetch, []

    async def lose_the_first(self, statement, *arguments):
        rows = await fetch(self, statement, *arguments)
        if statement in {SAVE, CHANGE} and not lost:
            lost.append(rows)
            await connection.execute("delete from customer_gateway_tokens")
            await connection.execute("insert into erased_users (user_hash) values ($1)", store._hash_user("u1"))
            raise asyncpg.ConnectionDoesNotExistError
        return rows

    monkeypatch.setattr(Connection, "fetch", lose_the_first)
    with pytest.raises(UnavailableError, match="erased since"):
        await changing(store)
    assert len(lost) == 1
