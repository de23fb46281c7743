"""Pages of tokens and of history: both directions, while rows come and go."""

import base64
import uuid
from datetime import UTC, datetime

import pytest

from graphql_api.service.tokens import Tokens
from tests.graph import token_of, wanted

PAGE = """
  query($filter: CustomerGatewayTokenFilter, $first: Int, $after: String, $last: Int, $before: String) {
    customerGatewayTokens(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
      edges { cursor node { id } }
      nodes { id userId gatewayCustomerId createdAt }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
"""


@pytest.fixture
def page(graph):
    async def ask(**variables):
        found = (await graph.ask(PAGE, **variables))["customerGatewayTokens"]
        assert [edge["node"]["id"] for edge in found["edges"]] == [node["id"] for node in found["nodes"]]
        cursors = [edge["cursor"] for edge in found["edges"]]
        assert [found["pageInfo"]["startCursor"], found["pageInfo"]["endCursor"]] == (
            [cursors[0], cursors[-1]] if cursors else [None, None]
        )
        return found

    return ask


def names(found):
    return [node["gatewayCustomerId"] for node in found["nodes"]]


async def fill(graph, count, user="u{}", gateway="STRIPE"):
    """Tokens cus_0, cus_1 … in the order of their making; every second one is as old as the one before."""
    await graph.save_many([wanted(user.format(number), gateway, f"cus_{number}") for number in range(count)])


async def is_old(connection, count):
    for number in range(count):
        await connection.execute(
            "update customer_gateway_tokens set created_at = '2026-01-01'::timestamptz + $1 * interval '1 microsecond'"
            " where gateway_customer_id = $2",
            number // 2,
            f"cus_{number}",
        )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("backwards", [False, True])
async def test_pages_show_every_token_once_in_the_order_of_making(graph, connection, page, size, backwards):
    await fill(graph, 7)
    await is_old(connection, 7)
    rows = await connection.fetch("select gateway_customer_id from customer_gateway_tokens order by created_at, id")
    expected = [row[0] for row in rows]
    seen, cursor = [], None
    for _ in range(20):  # more than enough
        found = await (page(last=size, before=cursor) if backwards else page(first=size, after=cursor))
        seen = [*names(found), *seen] if backwards else [*seen, *names(found)]
        info = found["pageInfo"]
        if not info["hasPreviousPage" if backwards else "hasNextPage"]:
            break
        assert len(found["nodes"]) == size
        cursor = info["startCursor" if backwards else "endCursor"]
    assert seen == expected


async def test_pages_stay_in_step_while_rows_come_and_go(graph, connection, page):
    await fill(graph, 6)
    await is_old(connection, 6)
    first = await page(first=3)
    shown = names(first)
    rest = [f"cus_{number}" for number in range(6) if f"cus_{number}" not in shown]
    await graph.delete(first["nodes"][2])  # the one that the cursor is of
    await graph.delete(first["nodes"][0])
    await graph.saved("new", "STRIPE", "cus_new")
    second = await page(first=10, after=first["pageInfo"]["endCursor"])
    assert [names(second)[-1], sorted(names(second)[:-1])] == ["cus_new", rest]
    back = await page(last=10, before=second["pageInfo"]["startCursor"])
    assert names(back) == [shown[1]]


async def test_a_page_between_two_cursors_holds_what_is_between(graph, connection, page):
    await fill(graph, 6)
    everything = await page()
    cursors = [edge["cursor"] for edge in everything["edges"]]
    for options in ({"first": 10}, {"last": 10}):
        between = await page(after=cursors[1], before=cursors[4], **options)
        assert names(between) == names(everything)[2:4]
    assert names(await page(after=cursors[1], before=cursors[5], first=2)) == names(everything)[2:4]
    assert names(await page(after=cursors[1], before=cursors[5], last=2)) == names(everything)[3:5]


async def test_a_page_says_whether_there_is_more_on_either_side(graph, page):
    await fill(graph, 3)
    everything = await page()
    first, middle, last = (edge["cursor"] for edge in everything["edges"])
    assert sides(everything) == (False, False)
    assert sides(await page(first=2)) == (False, True)
    assert sides(await page(first=1, after=first)) == (True, True)
    assert sides(await page(first=1, after=middle)) == (True, False)
    assert sides(await page(last=2)) == (True, False)
    assert sides(await page(last=1, before=last)) == (True, True)
    assert sides(await page(last=1, before=middle)) == (False, True)
    assert (await page(first=1, after=last))["nodes"] == []


@pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
async def test_a_side_is_there_only_if_something_matches_there(service_with, mode):
    graph = await service_with(engine=mode)
    for number, gateway in enumerate(["STRIPE", "PAYPAL", "STRIPE", "ADYEN"]):
        await graph.saved(f"u{number}", gateway, f"cus_{number}")

    async def page(filter_, **options):
        return (await graph.ask(PAGE, filter=filter_, **options))["customerGatewayTokens"]

    first, paypal, third, adyen = (edge["cursor"] for edge in (await page(None))["edges"])
    for gateway, after, expected in [
        ("PAYPAL", first, (False, False)),
        ("PAYPAL", paypal, (True, False)),  # an empty page, and the token of the cursor lies before it
        ("PAYPAL", adyen, (True, False)),
        ("STRIPE", first, (True, False)),
        ("ADYEN", third, (False, False)),
        ("MOLLIE", third, (False, False)),
    ]:
        assert sides(await page({"gateway": gateway}, first=1, after=after)) == expected
    for gateway, before, expected in [
        ("PAYPAL", adyen, (False, False)),
        ("PAYPAL", paypal, (False, True)),
        ("PAYPAL", first, (False, True)),
        ("STRIPE", third, (False, True)),
        ("MOLLIE", third, (False, False)),
    ]:
        assert sides(await page({"gateway": gateway}, last=1, before=before)) == expected


@pytest.mark.parametrize("moment", [-(10**17), 10**17])
async def test_a_cursor_at_the_ends_of_time_is_no_failure(graph, moment):
    """Nothing that we gave away, but well-formed."""
    cursor = base64.urlsafe_b64encode(f"token:{moment // 10}:{uuid.UUID(int=7)}".encode()).decode().rstrip("=")
    for options in ({"first": 1, "after": cursor}, {"last": 1, "before": cursor}):
        answer = await graph.client(PAGE, **options)
        assert "INTERNAL" not in str(answer)


def sides(found):
    return found["pageInfo"]["hasPreviousPage"], found["pageInfo"]["hasNextPage"]


async def test_a_page_has_fifty_tokens_where_no_size_is_given_and_at_most_five_hundred(graph, page):
    await fill(graph, 510)
    assert len((await page())["nodes"]) == 50
    assert len((await page(first=None, last=None))["nodes"]) == 50
    assert len((await page(first=500))["nodes"]) == 500
    assert len((await page(last=500))["nodes"]) == 500


REFUSED = [
    {"first": 0},
    {"first": -1},
    {"first": 501},
    {"last": 0},
    {"last": -5},
    {"last": 501},
    {"first": 1, "last": 1},
    {"after": ""},
    {"after": "not ours"},
    {"before": "bm90IG91cnM"},
    {"after": "\0"},
    {"after": "é" * 100_000},
    {"after": base64.b64encode(b"token:1:0192d4e5-8c1a-7bbb-8ccc-0123456789ab").decode()},  # with padding
    {"after": base64.urlsafe_b64encode(b"token:01:0192d4e5-8c1a-7bbb-8ccc-0123456789ab").decode().rstrip("=")},
    {"after": base64.urlsafe_b64encode(b"token:1:0192D4E5-8c1a-7bbb-8ccc-0123456789ab").decode().rstrip("=")},
    {"after": base64.urlsafe_b64encode(b"token:" + b"9" * 5000 + b":0192d4e5-8c1a-7bbb-8ccc-0123456789ab").decode()},
    {"after": base64.urlsafe_b64encode(b"token:1e9:x").decode().rstrip("=")},
    {"after": base64.urlsafe_b64encode(b"event:1").decode().rstrip("=")},
    {"filter": {"gateway": "not a name"}},
    {"filter": {"gateway": ""}},
    {"filter": {"userId": "\0"}},
    {"filter": {"gatewayCustomerId": "a\0"}},
    {"filter": {"createdAfter": "2026-11-22T17:28:02"}},
    {"filter": {"updatedBefore": "0001-01-01T00:00:00+14:00"}},
]


@pytest.mark.parametrize("variables", REFUSED, ids=lambda variables: str(variables)[:60])
async def test_what_cannot_be_understood_is_refused_with_a_clear_error(graph, variables):
    answer = await graph.client(PAGE, **variables)
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert len(error["message"]) > 15
    assert not answer.get("data")


async def test_the_total_is_counted_only_where_it_is_asked_for(graph, statements):
    await fill(graph, 5)
    query = "query($f: CustomerGatewayTokenFilter) { customerGatewayTokens(filter: $f, first: 2) { %s } }"
    statements.clear()
    await graph.ask(query % "nodes { id } edges { cursor } pageInfo { endCursor }")
    assert len(statements) == 1
    assert "count(" not in statements[0]
    for filter_, total in ((None, 5), ({"userId": "u1"}, 1), ({"gateway": "PAYPAL"}, 0)):
        answer = await graph.ask(query % "totalCount nodes { id }", f=filter_)
        assert answer["customerGatewayTokens"]["totalCount"] == total
    statements.clear()
    await graph.ask(query % "totalCount")
    assert sum("count(" in sql for sql in statements) == 1


@pytest.fixture
async def zoo(graph, connection):
    """Tokens of which every filter lets some through."""
    made = {}
    for number, (user, gateway) in enumerate([("u1", "STRIPE"), ("u1", "PAYPAL"), ("u2", "STRIPE"), ("u3", "STRIPE")]):
        made[f"cus_{number}"] = await graph.saved(user, gateway, f"cus_{number}")
    await graph.deactivate(made["cus_2"])
    await graph.verify("STRIPE", "cus_0", at="2026-06-01T00:00:00Z")
    await graph.verify("STRIPE", "cus_3", at="2026-08-01T00:00:00Z")
    for number, name in enumerate(made):
        await connection.execute(
            "update customer_gateway_tokens set created_at = $1, updated_at = $2 where gateway_customer_id = $3",
            datetime(2026, 1, 1 + number, tzinfo=UTC),
            datetime(2026, 1, 1 + number, 1, tzinfo=UTC),
            name,
        )


FILTERS = [
    ({}, "0123"),
    ({"userId": "u1"}, "01"),
    ({"userId": "nobody"}, ""),
    ({"gateway": " stripe"}, "023"),
    ({"gatewayCustomerId": "cus_2"}, "2"),
    ({"isActive": True}, "013"),
    ({"isActive": False}, "2"),
    ({"createdAfter": "2026-01-02T00:00:00Z"}, "23"),  # exclusive
    ({"createdBefore": "2026-01-02T00:00:00Z"}, "0"),
    ({"createdAfter": "2026-01-01T23:59:59.999999Z", "createdBefore": "2026-01-03T00:00:00.000001Z"}, "12"),
    ({"updatedAfter": "2026-01-02T01:00:00Z"}, "23"),
    ({"updatedBefore": "2026-01-02T02:00:00+01:00"}, "0"),
    ({"notVerifiedSince": "2026-07-01T00:00:00Z"}, "012"),
    ({"notVerifiedSince": "2026-01-01T00:00:00Z"}, "12"),
    ({"userId": "u1", "gateway": "PAYPAL"}, "1"),
    ({"gateway": "STRIPE", "isActive": True, "createdAfter": "2026-01-01T12:00:00Z"}, "3"),
    ({"userId": None, "gateway": None, "isActive": None, "createdAfter": None}, "0123"),
    ({"userId": "u1", "gatewayCustomerId": "cus_3"}, ""),
]


@pytest.mark.parametrize(("given", "expected"), FILTERS, ids=str)
async def test_filters_combine(zoo, graph, page, given, expected):
    assert names(await page(filter=given)) == [f"cus_{number}" for number in expected]
    answer = await graph.ask(
        "query($f: CustomerGatewayTokenFilter) { customerGatewayTokens(filter: $f) { totalCount } }", f=given
    )
    assert answer["customerGatewayTokens"]["totalCount"] == len(expected)


HISTORY = """
  query($id: ID!, $first: Int, $after: String) {
    customerGatewayToken(id: $id) {
      history(first: $first, after: $after) {
        edges { cursor node { version } } nodes { version }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
      }
    }
  }
"""


async def test_history_is_paged_newest_first(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    for number in range(2, 8):
        token_of(await graph.update(token, description=str(number)))

    async def history(**variables):
        return (await graph.ask(HISTORY, id=token["id"], **variables))["customerGatewayToken"]["history"]

    seen, cursor = [], None
    for _ in range(20):  # more than enough
        found = await history(first=3, after=cursor)
        assert [edge["node"] for edge in found["edges"]] == found["nodes"]
        assert found["pageInfo"]["hasPreviousPage"] == (cursor is not None)
        seen += [node["version"] for node in found["nodes"]]
        cursor = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    everything = await history()
    assert [node["version"] for node in everything["nodes"]] == seen
    token_of(await graph.update(token, description="newer"))
    after = await history(first=2, after=everything["edges"][2]["cursor"])
    assert [node["version"] for node in after["nodes"]] == [4, 3]


async def test_a_cursor_of_another_tokens_history_is_refused_in_its_place(graph):
    one, two = [await graph.saved("u1", gateway, "cus_1") for gateway in ("STRIPE", "PAYPAL")]
    for token in (one, two):
        token_of(await graph.update(token, description="x"))
    page = (await graph.ask(HISTORY, id=one["id"], first=1))["customerGatewayToken"]["history"]
    query = """query ($after: String) { customerGatewayTokens(filter: {userId: "u1"}) {
      nodes { gateway history(after: $after) { nodes { version } } }
    } }"""
    answer = await graph.client(query, after=page["pageInfo"]["endCursor"])
    found = {node["gateway"]: node["history"] for node in answer["data"]["customerGatewayTokens"]["nodes"]}
    assert found == {"STRIPE": {"nodes": [{"version": 1}]}, "PAYPAL": None}
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert "is not a cursor of this list" in error["message"]


def cursor_of(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "variables",
    [
        *({"first": 0}, {"first": 501}, {"first": -1}, {"after": "x"}, {"after": ""}, {"after": "\0"}),
        *({"after": cursor_of(text)} for text in ("event:1", "event:no uuid:1", "event:\0:1", "token:1:x")),
    ],
    ids=str,
)
async def test_a_page_of_history_that_makes_no_sense_is_refused_and_the_token_stands(graph, variables):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    answer = await graph.client(HISTORY, id=token["id"], **variables)
    assert answer["data"] == {"customerGatewayToken": {"history": None}}
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_entries_lead_to_their_tokens_as_they_are_now_by_one_statement(graph, statements):
    tokens = [await graph.saved(f"u{number}", "STRIPE", f"cus_{number}") for number in range(3)]
    for token in tokens:
        token_of(await graph.update(token, description="newer"))
    statements.clear()
    answer = await graph.ask(
        "{ customerGatewayTokens { nodes { history { nodes { tokenId version token { id version description } } } } } }"
    )
    lines = [line for node in answer["customerGatewayTokens"]["nodes"] for line in node["history"]["nodes"]]
    assert [(line["tokenId"], line["version"]) for line in lines] == [
        (token["id"], version) for token in tokens for version in (2, 1)
    ]
    assert all(line["token"] == {"id": line["tokenId"], "version": 2, "description": "newer"} for line in lines)
    assert len(statements) == 3  # the page, its histories, their tokens


async def test_an_entry_of_a_token_that_no_longer_exists_leads_to_none(graph, monkeypatch):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    history = Tokens.history

    async def meanwhile_deleted(*args, **options):
        found = await history(*args, **options)
        await graph.delete(token)
        return found

    monkeypatch.setattr(Tokens, "history", meanwhile_deleted)
    query = "query($id: ID!) { customerGatewayToken(id: $id) { history { nodes { tokenId token { id } } } } }"
    [line] = (await graph.ask(query, id=token["id"]))["customerGatewayToken"]["history"]["nodes"]
    assert line == {"tokenId": token["id"], "token": None}


async def test_the_histories_of_many_tokens_are_one_statement(graph, statements):
    await fill(graph, 5)
    statements.clear()
    answer = await graph.ask(
        "{ customerGatewayTokens(first: 5) {"
        " nodes { history(first: 1) { nodes { version } } formerGatewayCustomerIds user { id } } } }"
    )
    assert [node["history"]["nodes"] for node in answer["customerGatewayTokens"]["nodes"]] == [[{"version": 1}]] * 5
    assert len(statements) == 3  # the page, the histories, the former identifiers
