"""The change feed as a follower reads it: every change has its entry, and pages continue wherever one ended."""

import base64
from collections import Counter

import pytest

from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.storage import feed
from tests.graph import FIELDS, Graph, wanted

STATE = ("id", "userId", "gateway", "gatewayCustomerId", "isActive", "version")


@pytest.fixture
def graph(as_service, monkeypatch):
    """Reads the feed however long transactions in other databases of the server hold it up."""
    monkeypatch.setattr(feed, "_SETTLE_TIMEOUT_SECONDS", 30)
    return Graph(as_service(ADMIN_SCOPE))


async def all_of(graph, after=None, **arguments):
    """All entries after a cursor, and the cursor behind them."""
    entries, cursor = [], after
    while True:
        page = await graph.feed(first=4, after=cursor, **arguments)
        entries += page["nodes"]
        cursor = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return entries, cursor


def followed(entries, state=None):
    """The tokens as a follower has them who applies these entries; one whose token is gone is deleted."""
    state = {} if state is None else state
    for entry in entries:
        assert entry["version"] > state.get(entry["tokenId"], {}).get("version", 0)
        names = {"id": entry["tokenId"], **{name: entry[name] for name in STATE if name != "id"}}
        state[entry["tokenId"]] = names
        if entry["action"] in {"DELETED", "ERASED"} or (
            entry["action"] in {"MERGED", "REASSIGNED"} and entry["token"] is None
        ):
            state[entry["tokenId"]] = {"version": entry["version"]}
    return {key: value for key, value in state.items() if "id" in value}


async def stored(graph):
    data = await graph.ask(f"{{ customerGatewayTokens(first: 500) {{ nodes {{ {FIELDS} }} }} }}")
    nodes = data["customerGatewayTokens"]["nodes"]
    return {node["id"]: {name: node[name] for name in STATE} for node in nodes}


async def test_who_applies_every_entry_has_what_is_stored(graph):
    """Merged, moved, reassigned, reactivated: nothing changes what a follower knows without an entry."""
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.save("u1", "STRIPE", "cus_2", replaces="cus_1")
    await graph.deactivate_customer("STRIPE", "cus_2")
    await graph.verify("STRIPE", "cus_2")
    await graph.deactivate(token, reason="FRAUD")
    await graph.activate(token)
    await graph.save_many([wanted("u2", "STRIPE", "cus_3"), wanted("u2", "PAYPAL", "pp_3")])
    await graph.merge("u2", "u1", onConflict="KEEP_SOURCE")
    await graph.saved("u4", "STRIPE", "cus_4")
    await graph.deactivate_customer("STRIPE", "cus_4")
    await graph.reassign(("STRIPE", "cus_3", "u4"))
    await graph.save_many([wanted("u5", "ADYEN", "a_5"), wanted("u6", "ADYEN", "a_6")])
    await graph.reassign(("ADYEN", "a_5", "u6"), ("ADYEN", "a_6", "u5"))
    await graph.delete(await graph.customer("PAYPAL", "pp_3"))
    await graph.saved("u7", "STRIPE", "cus_7")
    await graph.erase("u7")
    entries, _ = await all_of(graph)
    assert followed(entries) == await stored(graph)
    assert Counter(entry["action"] for entry in entries) == {
        "CREATED": 7,
        "REPLACED": 1,
        "DEACTIVATED": 3,
        "ACTIVATED": 2,
        "MERGED": 3,
        "REASSIGNED": 4,
        "DELETED": 1,
        "ERASED": 1,
    }


async def test_the_loser_of_a_merge_has_an_entry_without_a_token(graph):
    loser = await graph.saved("u1", "STRIPE", "cus_1")
    winner = await graph.saved("u2", "STRIPE", "cus_2")
    await graph.merge("u1", "u2", onConflict="KEEP_TARGET")
    entries, _ = await all_of(graph, filter={"actions": ["MERGED"]})
    by_token = {entry["tokenId"]: entry for entry in entries}
    assert by_token[loser["id"]]["token"] is None
    assert (by_token[loser["id"]]["isActive"], by_token[loser["id"]]["reason"]) == (False, "MERGED")
    assert by_token[winner["id"]]["token"]["id"] == winner["id"]


async def test_an_erasure_takes_the_person_out_of_entries_that_were_not_read_yet(graph):
    await graph.saved("u1", "STRIPE", "cus_1", description="x")
    await graph.erase("u1")
    entries, _ = await all_of(graph)
    assert [entry["action"] for entry in entries] == ["CREATED", "ERASED"]
    assert {(entry["userId"], entry["gatewayCustomerId"], entry["token"]) for entry in entries} == {(None, "", None)}


async def test_an_empty_page_says_where_to_continue(graph):
    empty = await graph.feed()
    assert (empty["nodes"], empty["pageInfo"]["startCursor"], empty["pageInfo"]["hasNextPage"]) == ([], None, False)
    token = await graph.saved("u1", "STRIPE", "cus_1")
    entries, cursor = await all_of(graph, after=empty["pageInfo"]["endCursor"])
    assert [entry["id"] for entry in entries] == [f"{token['id']}:1"]
    again = await graph.feed(after=cursor)
    assert (again["nodes"], again["pageInfo"]["endCursor"]) == ([], cursor)
    assert again["pageInfo"]["hasPreviousPage"]


async def test_who_starts_now_gets_what_comes(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    now = await graph.feed(startAt="NOW")
    assert now["nodes"] == []
    assert not now["pageInfo"]["hasNextPage"]
    token = await graph.saved("u2", "STRIPE", "cus_2")
    entries, _ = await all_of(graph, after=now["pageInfo"]["endCursor"], startAt="NOW")  # `after` counts
    assert [entry["tokenId"] for entry in entries] == [token["id"]]
    assert len((await graph.feed(startAt="OLDEST"))["nodes"]) == 2


@pytest.mark.parametrize("size", [1, 2, 5, 6])
async def test_pages_continue_after_any_edge_and_tell_of_more_pages(graph, size):
    await graph.save_many([wanted(f"u{number}", "STRIPE", f"cus_{number}") for number in range(5)])
    seen, cursor = [], None
    while True:
        page = await graph.feed(first=size, after=cursor)
        info = page["pageInfo"]
        cursors = [edge["cursor"] for edge in page["edges"]]
        assert [info["startCursor"], info["endCursor"]] == [cursors[0], cursors[-1]]
        assert [edge["node"]["id"] for edge in page["edges"]] == [node["id"] for node in page["nodes"]]
        assert info["hasPreviousPage"] == bool(seen)
        seen += page["edges"]
        cursor = info["endCursor"]
        if not info["hasNextPage"]:
            break
        assert len(page["nodes"]) == size
    assert len(seen) == len({edge["node"]["id"] for edge in seen}) == 5
    for number, edge in enumerate(seen, 1):
        rest = await graph.feed(after=edge["cursor"])
        assert [each["node"]["id"] for each in rest["edges"]] == [each["node"]["id"] for each in seen[number:]]


async def test_filters_combine(graph):
    one = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u1", "PAYPAL", "pp_1")
    await graph.deactivate(one)

    async def found(**given):
        entries, _ = await all_of(graph, filter=given)
        return [(entry["gateway"], entry["action"]) for entry in entries]

    everything = [("STRIPE", "CREATED"), ("PAYPAL", "CREATED"), ("STRIPE", "DEACTIVATED")]
    assert await found() == await found(gateways=None, actions=None) == everything
    assert await found(gateways=["stripe"]) == [everything[0], everything[2]]
    assert await found(actions=["CREATED", "DELETED"]) == everything[:2]
    assert await found(gateways=["PAYPAL", "ADYEN"], actions=["CREATED"]) == [everything[1]]
    assert await found(gateways=["ADYEN"]) == await found(actions=[]) == []


def encoded(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('after: "x"', "not a cursor"),
        (f'after: "{encoded("event:1")}"', "not a cursor"),
        (f'after: "{encoded("feed:00000001:01")}"', "not a cursor"),
        (f'after: "{encoded("feed:00000001:-1")}"', "not a cursor"),
        (f'after: "{encoded("feed:00000001:9999999999999999999")}"', "not a cursor"),
        (f'after: "{encoded("feed:00000001-0123456:1")}"', "not a cursor"),
        ("first: 0", "between 1 and 500"),
        ("first: 501", "between 1 and 500"),
        ('filter: {gateways: ["a b"]}', "gateway"),
    ],
)
async def test_what_cannot_be_followed_is_refused(graph, arguments, message):
    answer = await graph.client(f"{{ customerGatewayTokenEvents({arguments}) {{ nodes {{ id }} }} }}")
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert message in answer["errors"][0]["message"]


async def test_a_cursor_of_another_timeline_is_taken(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    entries, _ = await all_of(graph, after=encoded("feed:FFFFFFFF:9000000000000000000"))
    assert [entry["tokenId"] for entry in entries] == [token["id"]]


async def test_the_feed_serves_those_who_have_its_scope(as_service, graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    follower = Graph(as_service("gateway-tokens:events"))
    [entry] = (await follower.feed())["nodes"]
    assert entry["token"] == {"id": token["id"], "version": 1, "isActive": True, "userId": "u1"}


async def test_after_a_deletion_or_an_erasure_nothing_is_active(graph):
    deleted = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.delete(deleted)
    await graph.saved("u2", "STRIPE", "cus_2")
    await graph.erase("u2")
    entries = (await graph.feed("nodes { action isActive }"))["nodes"]
    assert {(entry["action"], entry["isActive"]) for entry in entries if entry["action"] in {"DELETED", "ERASED"}} == {
        ("DELETED", False),
        ("ERASED", False),
    }
