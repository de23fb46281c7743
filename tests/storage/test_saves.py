"""What the database decides of a save is what the domain would, and a second run of it changes nothing."""

from datetime import UTC, datetime, timedelta
from itertools import product

import asyncpg
import pytest
from uuid_utils import uuid7

from graphql_api.domain.errors import UnavailableError
from graphql_api.domain.inputs import Save
from graphql_api.domain.token import Action, Changes, Edit, Event, Given, Token, edited
from graphql_api.storage import clock
from graphql_api.storage.clock import DatabaseClock
from graphql_api.storage.connection import Connection
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.saves import SAVE, SaveRequest
from graphql_api.storage.tokens import TokenStore

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


@pytest.fixture
async def store(empty_database):
    async with ConnectionPool.open(empty_database) as database:
        yield TokenStore(database)


async def test_the_database_decides_as_the_domain_does(store, connection):
    changes, requests = Changes(), {}
    for number, (stored, (edit, save, at)) in enumerate(product(STORED, SAVES)):
        token = Token(str(uuid7()), f"u{number}", "STRIPE", f"cus_{number}", THEN, THEN, THEN, **stored)
        changes.create(Event(token, Action.CREATED))
        wanted = Edit(**{"gateway_customer_id": token.gateway_customer_id} | edit)
        requests[SaveRequest(Save(token.user_id, token.gateway, wanted, **save), at, "a-test")] = token
    async with store.transaction([]) as transaction:
        await transaction.write(changes, "a-test")

    found = await store._save(list(requests))
    expected = {request: after(request, token) for request, token in requests.items()}
    assert {request: (each.token, each.is_saved) for request, each in found.items()} == expected
    lines = await connection.fetch(
        "select token_id::text, version, at, reason, actor, is_active from customer_gateway_token_events"
        " where action = 'UPDATED' order by token_id"
    )
    saved = [token for token, is_saved in expected.values() if is_saved]
    assert 100 < len(saved) < len(requests) - 100
    assert [(*line,) for line in lines] == [
        (token.id, 2, token.updated_at, None, "a-test", token.is_active) for token in saved
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


@pytest.mark.parametrize(("meanwhile", "version"), [("select", 2), (OTHERS, 3), (DELETED, None)])
async def test_a_save_whose_answer_was_lost_is_found_whatever_happened_meanwhile(
    store, connection, monkeypatch, meanwhile, version
):
    token = Token(str(uuid7()), "u1", "STRIPE", "cus_1", THEN, THEN, THEN)
    changes = Changes()
    changes.create(Event(token, Action.CREATED))
    async with store.transaction(["u1"]) as transaction:
        await transaction.write(changes, "a-test")
    await store.read_at("u1", "STRIPE")  # says the time
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


def test_the_time_is_never_given_twice_and_lies_within_what_is_known(monkeypatch):
    seconds = [1000.0]
    monkeypatch.setattr(clock, "time", lambda: seconds[0])
    known = DatabaseClock()
    assert known.now() is None
    for ahead in (30.0, 31.0, -5.0):
        asked_at, seconds[0] = seconds[0], seconds[0] + 0.01
        known.set(datetime.fromtimestamp(asked_at + ahead, UTC), asked_at)
        times = [known.now() for _ in range(3)]
        assert sorted({*times}) == times
        assert ahead - 0.011 < times[0].timestamp() - seconds[0] < ahead + 0.001
    seconds[0] += 4
    assert known.now() is not None
    for late in (5, -10):
        seconds[0] += late
        assert known.now() is None
