"""Each documented lookup uses an index once there are rows enough to care."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from graphql_api.domain.token import Token
from graphql_api.storage import checks, erasure_statements, feed, retention, selects, statements
from graphql_api.storage.pool import SESSION, ConnectionPool
from graphql_api.storage.saves import SAVE
from tests.conftest import CITUS
from tests.storage.plans import nodes_of

pytestmark = pytest.mark.skipif(
    bool(CITUS), reason="a coordinator shows no plans of its functions, and these texts are those for one server"
)
MOMENT = datetime(2026, 11, 22, tzinfo=UTC)
ID = "00000000-0000-7000-8000-000000000001"
PAIR = [["user-7"], ["STRIPE"]]
CUSTOMER = [["cus_7"], ["STRIPE"]]
TOKEN = Token(ID, "user-7", "STRIPE", "cus_8", MOMENT, MOMENT, MOMENT)
FIELDS = (("id", "id", None), ("__typename", None, "CustomerGatewayToken"))


@pytest.fixture(scope="module")
async def filled(new_database, migrated_database):
    """A database of its own with tokens, identifiers and history, analysed."""
    url = await new_database(migrated_database)
    async with ConnectionPool.open(url) as database, database.transaction() as transaction:
        await transaction.raw.execute(
            """
            insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id, created_at, last_verified_at)
            select
              'user-' || n, (array['STRIPE', 'PAYPAL'])[1 + n % 2], 'cus_' || n,
              '2026-01-01'::timestamptz + n * interval '1 s',
              case when n % 100 > 0 then '2026-06-01'::timestamptz + n * interval '1 s' end
            from generate_series(1, 20000) n;
            insert into gateway_customers (gateway_customer_id, gateway, user_id)
            select gateway_customer_id, gateway, user_id from customer_gateway_tokens;
            insert into customer_gateway_token_events
              (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
            select id, 1, user_id, gateway, gateway_customer_id, true, 'CREATED', 'test', created_at
            from customer_gateway_tokens;
            insert into departed_tokens (user_id, token_id) select user_id, id from customer_gateway_tokens;
            insert into gateway_customer_claims (user_id, gateway, expires_at)
            select user_id, gateway, now() from customer_gateway_tokens;
            insert into gateway_customer_reports (gateway_customer_id, gateway, gone_at)
            select gateway_customer_id, gateway, now() from customer_gateway_tokens;
            insert into gateway_erasures (gateway_customer_id, gateway, user_hash)
            select gateway_customer_id, gateway, user_id::bytea from customer_gateway_tokens;
            insert into erased_users (user_hash) select sha256(n::text::bytea) from generate_series(1, 20000) n;
            analyze
            """
        )
    async with ConnectionPool.open(url) as database, database.transaction() as transaction:
        yield transaction.raw


def page(*filters, **options):
    return selects.page(tuple(filters), **{"after": False, "before": False, "backwards": False} | options)


LOOKUPS = {
    "customers that were verified last": (checks._LAST_VERIFIED, ["STRIPE", 3]),
    "tokens to check, leased": (checks._LEASE, [[ID], MOMENT, 300.0]),
    "whether a customer is to be deleted": (erasure_statements.IS_TO_ERASE, ["STRIPE", "cus_7"]),
    "tokens by id": (selects.by_ids(None), [[ID]]),
    "tokens by user and gateway": (selects.by_users_and_gateways(None), PAIR),
    "a token by its gateway and customer": (selects.by_current_customers(None), ["cus_7", ",", "STRIPE", None]),
    "tokens by gateway and customer, current or former": (selects.by_customers(None), CUSTOMER),
    "the tokens of users": (selects.of_users(None), selects.joined(["user-7", "user-8"])),
    "the tokens of users as JSON": (selects.of_users_as_json(FIELDS), selects.joined(["user-7", "user-8"])),
    "a page of all": (page(), [51]),
    "a page of all after a cursor": (page(after=True), [MOMENT, ID, 51]),
    "a page of all, backwards": (page(backwards=True, before=True), [MOMENT, ID, 51]),
    "a page of one user's": (page("user_id"), ["user-7", 51]),
    "a page of one customer's": (page("gateway", "gateway_customer_id"), ["STRIPE", "cus_7", 51]),
    "a page of a gateway's": (page("gateway"), ["PAYPAL", 51]),
    "a page of a gateway's after a cursor": (page("gateway", after=True), ["PAYPAL", MOMENT, ID, 51]),
    "a page of those made since": (page("created_after"), [MOMENT, 51]),
    "a token by id, to change it": (statements.READ_BY_ID, [ID]),
    "a token by user and gateway, to change it": (statements.READ_BY_USERS_AND_GATEWAYS, ["user-7", ",", "STRIPE"]),
    "a save": (SAVE, [[{"user_id": "user-7", "gateway": "STRIPE"}], "UPDATED"]),
    "whether a change is recorded": (statements.RECORDED, ["user-7", 7]),
    "tokens by user and gateway, locked": (statements.LOCK_BY_USERS_AND_GATEWAYS, PAIR),
    "the tokens of users, locked": (statements.LOCK_OF_USERS, [["user-7", "user-8"]]),
    "a user's identifiers at a gateway": (statements.IDENTIFIERS, PAIR),
    "all of a user's identifiers": (statements.IDENTIFIERS_OF, ["user-7"]),
    "whose an identifier is": (statements.CUSTOMERS, CUSTOMER[::-1]),
    "a token's history": (statements.HISTORY, [[ID], None, 51]),
    "the last line of a token": (statements.LAST_LINE, [ID]),
    "whether users were erased": (erasure_statements.ERASED, [[b"hash"]]),
    "a claim": (statements.CLAIM, [["user-7"], ["STRIPE"], [30], [b"hash"]]),
    "a replacement": (statements.UPDATE, statements.token_arrays([TOKEN], {ID})),
    "identifiers that are taken": (statements.RESERVE, [["STRIPE"], ["cus_7"], ["user-7"]]),
    "identifiers that are reported on": (statements.SHARE_IDENTIFIERS, [["STRIPE"], ["cus_7"]]),
    "which identifiers are current": (statements.CURRENT, [["STRIPE"], ["cus_7"]]),
    "the moving of identifiers and of tokens that are gone": (statements.REASSIGN_IDENTIFIERS, ["user-7", "user-8"]),
    "the tokens that a user had": (erasure_statements.FORGET_DEPARTED, ["user-7"]),
    "what is new in the feed": (feed.STATEMENTS.look, [0]),
    "a page of the feed": (feed.STATEMENTS.page, [5000, 20000, 501]),
    "a page of the feed with a filter": (feed.STATEMENTS.filtered_page, [5000, 20000, 501, ["STRIPE"], ["DELETED"]]),
    "what precedes a place in the feed": (feed.PRECEDES, [5000, None, ["DELETED"]]),
    "the age of an entry": (feed.AGE, [5000]),
    "old entries to delete": (retention._statement(5, dry_run=False), [ID, 0, timedelta()]),
    "old entries to count": (retention._statement(5, dry_run=True), [ID, 0, timedelta()]),
    "who else had them": (erasure_statements.FORGET_NAMELESS, [[ID]]),
}


# A row for each failover, for each endpoint, and for each database.
TINY = {"event_timelines", "event_endpoints", "pg_database"}


@pytest.mark.parametrize("lookup", LOOKUPS)
async def test_a_lookup_reads_by_index_and_never_the_whole_table(filled, lookup):
    statement, arguments = LOOKUPS[lookup]
    plan = json.loads(await filled.fetchval(f"explain (format json) {statement.sql}", *arguments))[0]["Plan"]
    nodes = list(nodes_of(plan))
    assert {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} <= TINY
    assert [node for node in nodes if node["Node Type"].startswith(("Index", "Bitmap"))]


async def test_what_is_planned_for_old_entries_knows_how_many_are_looked_at(filled):
    """Otherwise a long history is read to its end for each few entries that are deleted."""
    statement = retention._statement(5, dry_run=False)
    await filled.execute(f"prepare old_entries as {statement.sql}")  # planned without its arguments
    plan = json.loads(await filled.fetchval(f"explain (format json) execute old_entries ('{ID}', 0, '0')"))[0]["Plan"]
    assert max(node["Plan Rows"] for node in nodes_of(plan) if node["Node Type"] == "Limit") == 5


COVERED = ("id", "user_id", "gateway", "gateway_customer_id", "is_active", "created_at")


@pytest.mark.parametrize(
    "statement",
    [selects.of_users(frozenset(COVERED)), selects.of_users_as_json(tuple((name, name, None) for name in COVERED))],
)
async def test_what_is_asked_most_of_users_tokens_is_read_from_the_index_alone(filled, statement):
    is_new = int(await filled.fetchval("show server_version_num")) >= 170000
    sql = (is_new and statement.sql_pg17) or statement.sql
    explain = f"explain (format json) {sql}"
    plan = json.loads(await filled.fetchval(explain, *selects.joined(["user-7", "user-8"])))[0]["Plan"]
    assert {node["Node Type"] for node in nodes_of(plan) if "Relation Name" in node} == {"Index Only Scan"}


async def test_connections_keep_the_plans_that_were_looked_at(filled):
    for name in ("plan_cache_mode", "enable_bitmapscan"):
        assert await filled.fetchval(f"show {name}") == SESSION[name]
