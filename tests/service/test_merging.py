"""Two users become one: what moves, what stays, what is kept of the loser, and what a dry run says of it."""

import asyncio
import re

import pytest

from tests.graph import FIELDS, HISTORY, problems, token_of

EVERYTHING = f"""
    user {{ id gatewayToken(gateway: "STRIPE") {{ id version }}
      gatewayTokens {{ {FIELDS} {HISTORY} }}
      active: gatewayTokens(isActive: true) {{ id }}
      plain: gatewayTokens {{ id }} }}
    moved {{ {FIELDS} {HISTORY} user {{ id gatewayTokens {{ gateway gatewayCustomerId }} }} }}
    conflicts {{ {FIELDS} {HISTORY} user {{ id gatewayTokens {{ gateway }} }} }}
    winners {{ {FIELDS} {HISTORY} user {{ id gatewayTokens {{ gateway }} }} }}
    userErrors {{ code message field }}
"""
MERGE = f"""
  mutation($policy: MergeConflictPolicy!, $dryRun: Boolean!) {{
    mergeUserGatewayTokens(fromUserId: "guest", intoUserId: "u1", onConflict: $policy, dryRun: $dryRun) {{
      {EVERYTHING}
    }}
  }}
"""


async def prepare(graph):
    """A guest with a customer at three gateways, and a user who has one at two of them; all with a past."""
    for user in ("guest", "u1"):
        await graph.saved(user, "STRIPE", f"{user}_old", description=user)
        await graph.saved(user, "STRIPE", f"{user}_new", replaces=f"{user}_old")
        await graph.saved(user, "PAYPAL", f"{user}_pp", isActive=user == "u1")
    await graph.saved("guest", "ADYEN", "guest_ad", metadata={"a": 1})
    await graph.saved("u1", "KLARNA", "u1_kl")
    gone = await graph.saved("guest", "MOLLIE", "guest_mo")
    await graph.delete(gone)


async def dump(connection):
    tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public' order by 1")
    return {
        table: await connection.fetch(f"select * from {table} order by {table}::text")  # noqa: S608
        for (table,) in tables
    }


def customers(tokens):
    return {token["gateway"]: token["gatewayCustomerId"] for token in tokens}


async def test_under_fail_each_conflict_is_named_and_nothing_moves(graph, connection):
    await prepare(graph)
    before = await dump(connection)
    payload = await graph.merge("guest", "u1")
    assert problems(payload) == [("ALREADY_EXISTS", ["fromUserId"])] * 2
    for gateway, error in zip(("PAYPAL", "STRIPE"), payload["userErrors"], strict=True):
        assert gateway in error["message"]
    assert customers(payload["conflicts"]) == {"STRIPE": "guest_new", "PAYPAL": "guest_pp"}
    assert customers(payload["winners"]) == {"STRIPE": "u1_new", "PAYPAL": "u1_pp"}
    assert (payload["moved"], payload["user"]) == ([], {"id": "u1"})
    assert await dump(connection) == before


async def test_without_a_conflict_everything_moves(graph):
    token = await graph.saved("guest", "STRIPE", "cus_2", description="x")
    await graph.saved("u1", "PAYPAL", "pp_1")
    payload = await graph.merge("guest", "u1")
    [moved] = payload["moved"]
    assert (moved["id"], moved["userId"], moved["version"], moved["description"]) == (token["id"], "u1", 2, "x")
    assert moved["createdAt"] == token["createdAt"]
    assert (payload["conflicts"], problems(payload)) == ([], [])
    assert await graph.tokens("guest") == []
    assert await graph.customer("STRIPE", "cus_2") == moved
    newest = (await graph.history(moved))[0]
    assert (newest["action"], newest["version"], newest["reason"]) == ("MERGED", 2, None)


@pytest.mark.parametrize(
    ("policy", "winner", "loser", "moved"),
    [
        ("KEEP_TARGET", "u1", "guest", {"ADYEN"}),
        ("KEEP_SOURCE", "guest", "u1", {"ADYEN", "STRIPE", "PAYPAL"}),
    ],
)
async def test_the_side_that_is_kept_is_the_row_and_the_other_ones_customers_are_former(
    graph, connection, policy, winner, loser, moved
):
    await prepare(graph)
    before = {
        (token["userId"], token["gateway"]): token for user in ("guest", "u1") for token in await graph.tokens(user)
    }
    payload = await graph.merge("guest", "u1", onConflict=policy)
    assert problems(payload) == []
    assert {token["gateway"] for token in payload["moved"]} == moved
    assert payload["conflicts"] == [before[loser, gateway] for gateway in ("PAYPAL", "STRIPE")]
    assert [token["id"] for token in payload["winners"]] == [
        before[winner, gateway]["id"] for gateway in ("PAYPAL", "STRIPE")
    ]
    assert await graph.tokens("guest") == []
    after = {token["gateway"]: token for token in await graph.tokens("u1")}
    assert customers(after.values()) == {
        "ADYEN": "guest_ad",
        "KLARNA": "u1_kl",
        "PAYPAL": f"{winner}_pp",
        "STRIPE": f"{winner}_new",
    }
    stripe = after["STRIPE"]
    assert (stripe["id"], stripe["version"]) == (before[winner, "STRIPE"]["id"], 3)
    assert set(stripe["formerGatewayCustomerIds"]) == {f"{winner}_old", f"{loser}_old", f"{loser}_new"}
    assert after["KLARNA"] == before["u1", "KLARNA"]
    for customer in ("guest_old", "guest_new", "u1_old", "u1_new"):
        assert await graph.customer("STRIPE", customer) == stripe
        assert problems(await graph.save("guest", "STRIPE", customer)) == [
            ("CUSTOMER_TAKEN", ["input", "gatewayCustomerId"])
        ]
    last = await connection.fetchrow(
        "select action, version, is_active, reason from customer_gateway_token_events where token_id = $1"
        " order by version desc limit 1",
        before[loser, "STRIPE"]["id"],
    )
    assert tuple(last) == ("MERGED", 3, False, "MERGED")


async def test_what_a_guest_had_once_is_reserved_for_the_user_after_a_merge(graph):
    await prepare(graph)
    await graph.merge("guest", "u1", onConflict="KEEP_TARGET")
    assert problems(await graph.save("u9", "MOLLIE", "guest_mo")) == [
        ("CUSTOMER_TAKEN", ["input", "gatewayCustomerId"])
    ]
    assert (await graph.saved("u1", "MOLLIE", "guest_mo"))["userId"] == "u1"


@pytest.mark.parametrize("policy", ["FAIL", "KEEP_TARGET", "KEEP_SOURCE"])
@pytest.mark.parametrize("engine", ["compiled", "graphql-core"])
async def test_a_dry_run_gives_the_very_answer_of_the_real_run_and_changes_nothing(
    service_with, connection, engine, policy
):
    graph = await service_with(engine=engine)
    await prepare(graph)
    before = await dump(connection)
    rehearsed = await graph.ask(MERGE, policy=policy, dryRun=True)
    assert await dump(connection) == before
    real = await graph.ask(MERGE, policy=policy, dryRun=False)
    assert without_new_times(rehearsed) == without_new_times(real)
    assert (await dump(connection) == before) == (policy == "FAIL")


def without_new_times(answer):
    """The answer as text without what the clock said meanwhile: equal times stay equal to each other."""
    times = sorted(set(re.findall(r"\d{4}-\d\d-\d\dT[^']*", str(answer))))
    text = str(answer)
    for number, time in enumerate(times):
        text = text.replace(time, f"time {number}")
    return text


async def test_what_follows_a_dry_run_in_the_same_request_sees_what_is_there(graph):
    await prepare(graph)
    answer = await graph.ask(
        f"""
        mutation {{
          dry: mergeUserGatewayTokens(fromUserId: "guest", intoUserId: "u1", onConflict: KEEP_SOURCE, dryRun: true) {{
            user {{ gatewayTokens {{ gatewayCustomerId }} }}
          }}
          real: deactivateGatewayCustomer(gateway: "STRIPE", gatewayCustomerId: "guest_new") {{
            gatewayToken {{ userId version user {{ gatewayTokens {{ gatewayCustomerId }} }} }}
          }}
          erased: mergeUserGatewayTokens(fromUserId: "guest", intoUserId: "u1") {{ {EVERYTHING} }}
        }}
        """
    )
    assert {token["gatewayCustomerId"] for token in answer["dry"]["user"]["gatewayTokens"]} == {
        "guest_ad",
        "guest_new",
        "guest_pp",
        "u1_kl",
    }
    token = answer["real"]["gatewayToken"]
    assert (token["userId"], token["version"], len(token["user"]["gatewayTokens"])) == ("guest", 3, 3)
    assert {each["userId"] for each in answer["erased"]["conflicts"]} == {"guest"}


async def test_dry_runs_at_once_leave_connections_and_locks_as_they_were(graph, connection):
    await prepare(graph)
    before = await dump(connection)
    await asyncio.gather(*(graph.ask(MERGE, policy="KEEP_SOURCE", dryRun=True) for _ in range(12)))
    assert await dump(connection) == before
    held = "select count(*) from pg_locks join pg_database d on d.oid = database where locktype = 'advisory'"
    assert await connection.fetchval(f"{held} and datname = current_database()") == 0
    assert token_of(await graph.save("u1", "STRIPE", "u1_new", description="x"))["version"] == 3


@pytest.mark.parametrize("policy", ["FAIL", "KEEP_TARGET", "KEEP_SOURCE"])
async def test_a_second_run_changes_nothing(graph, connection, policy):
    await graph.saved("guest", "STRIPE", "cus_2")
    await graph.saved("guest", "PAYPAL", "pp_2")
    if policy != "FAIL":
        await graph.saved("u1", "STRIPE", "cus_1")
    await graph.merge("guest", "u1", onConflict=policy)
    before = await dump(connection)
    again = await graph.merge("guest", "u1", onConflict=policy)
    assert again == {"user": {"id": "u1"}, "moved": [], "conflicts": [], "winners": [], "userErrors": []}
    assert await dump(connection) == before


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_merge_that_makes_no_sense_is_refused(graph, dry_run):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.erase("gone")
    itself = await graph.merge("u1", "u1", dryRun=dry_run)
    assert problems(itself) == [("INVALID", ["intoUserId"])]
    into_erased = await graph.merge("u1", "gone", dryRun=dry_run)
    assert problems(into_erased) == [("ERASED", ["intoUserId"])]
    for payload in (itself, into_erased):
        assert (payload["user"], payload["moved"], payload["conflicts"]) == (None, [], [])
    assert problems(await graph.merge("gone", "u1", dryRun=dry_run)) == []


async def test_a_late_event_for_the_losing_customer_leaves_the_winner_alone(graph):
    await graph.saved("guest", "STRIPE", "cus_2")
    winner = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.merge("guest", "u1", onConflict="KEEP_TARGET")
    now = await graph.token(winner["id"])
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_2")) == now
    assert token_of(await graph.verify("STRIPE", "cus_2")) == now
    assert now["isActive"] is True


@pytest.mark.parametrize("policy", ["FAIL", "KEEP_TARGET", "KEEP_SOURCE"])
@pytest.mark.parametrize(
    ("deleted", "kept", "moves"), [("guest", "u1", False), ("u1", "guest", True), ("guest u1", "u1", False)]
)
async def test_a_deleted_customer_is_no_conflict(graph, policy, deleted, kept, moves):
    tokens = {user: await graph.saved(user, "STRIPE", f"cus_{user}") for user in ("guest", "u1")}
    for user in deleted.split():
        await graph.deactivate_customer("STRIPE", f"cus_{user}")
    rehearsed = await graph.merge("guest", "u1", onConflict=policy, dryRun=True)
    payload = await graph.merge("guest", "u1", onConflict=policy)
    assert without_new_times(rehearsed) == without_new_times(payload)
    assert (problems(payload), payload["conflicts"], payload["winners"]) == ([], [], [])
    assert customers(payload["moved"]) == ({"STRIPE": "cus_guest"} if moves else {})
    [token] = await graph.tokens("u1")
    assert (token["id"], token["isActive"]) == (tokens[kept]["id"], kept not in deleted.split())
    other = "cus_u1" if moves else "cus_guest"
    assert token["formerGatewayCustomerIds"] == [other]
