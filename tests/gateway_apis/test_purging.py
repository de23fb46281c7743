"""Purges: what is deleted at the gateway, what is confirmed, and what is never touched."""

import pytest

from graphql_api.gateway_apis.client import StoppedError
from graphql_api.gateway_apis.mollie import Mollie
from tests.gateway_apis import standin


@pytest.fixture
async def erased(tokens, graph):
    """Users u1 to u3 are erased, and u4 stays, whose customer the gateway confirmed."""
    await tokens(4)
    await graph.verify("STRIPE", "cus_4")
    for user in ("u1", "u2", "u3"):
        await graph.erase(user)


@pytest.fixture
def left(graph):
    """What is still to be deleted."""

    async def listed():
        return [node["gatewayCustomerId"] for node in (await graph.erasures())["nodes"]]

    return listed


async def test_what_erased_users_left_is_deleted_and_confirmed(purge, erased, stripe, left):
    tally, lines = await purge(stripe)
    assert str(tally) == "3 deleted, 0 deleted before, 0 unknown there, 0 failed, 0 skipped"
    assert (lines, await left()) == ([(f"cus_{n}", "DELETED") for n in (1, 2, 3)], [])
    assert stripe.customers == {f"cus_{n}": standin.DELETED for n in (1, 2, 3)} | {"cus_4": standin.LIVE}


async def test_a_customer_that_is_saved_while_it_is_deleted_is_known_to_be_gone(purge, erased, stripe, graph):
    real, stripe.handle = stripe.handle, None

    async def handle(request):
        if request.method == "DELETE" and request.url.path.endswith("cus_1"):
            await graph.saved("u5", "STRIPE", "cus_1")
        return await real(request)

    stripe.handle = handle
    await purge(stripe)
    assert (await graph.customer("STRIPE", "cus_1"))["deactivationReason"] == "GATEWAY_DELETED"


async def test_after_a_failure_it_goes_on_and_the_failed_one_stays_on_the_list(purge, erased, stripe, left):
    stripe.faults.extend([None, None, 500, 500, 500])
    tally, lines = await purge(stripe)
    assert (tally.deleted, tally.failed) == (2, 1)
    assert (lines, await left()) == (
        [("cus_1", "DELETED"), ("cus_2", "FAILED"), ("cus_3", "DELETED")],
        ["cus_2"],
    )
    assert (await purge(stripe))[0].deleted == 1


async def test_a_deletion_whose_answer_was_lost_is_found_out(purge, erased, stripe, left):
    real, stripe.answer = stripe.answer, None

    def losing(method, path, query):
        answer = real(method, path, query)
        return (500, {}) if method == "DELETE" and answer[0] == 200 else answer

    stripe.answer = losing
    tally, _ = await purge(stripe)
    assert (tally.deleted_before, await left()) == (3, [])


@pytest.mark.parametrize("missing_is_done", [False, True])
async def test_what_is_unknown_there_is_done_only_if_that_is_wanted(purge, erased, stripe, left, missing_is_done):
    del stripe.customers["cus_2"]
    tally, _ = await purge(stripe, missing_is_done=missing_is_done)
    assert (tally.unknown, await left()) == ((0, []) if missing_is_done else (1, ["cus_2"]))


async def test_in_another_account_nothing_is_deleted_or_done(purge, erased, stripe, left):
    del stripe.customers["cus_4"]
    with pytest.raises(StoppedError, match="this looks like another account"):
        await purge(stripe, missing_is_done=True)
    assert (stripe.count("DELETE"), await left()) == ({}, ["cus_1", "cus_2", "cus_3"])


@pytest.mark.parametrize("faults", [[500] * 3, [None, 500, 500, 500]], ids=["all", "one of two"])
async def test_if_the_gateway_does_not_answer_nothing_is_said_of_its_account(
    purge, erased, stripe, left, graph, faults
):
    if faults[0] is None:  # the customer that was verified last is unknown there
        await graph.save("u5", "STRIPE", "cus_5")
        await graph.verify("STRIPE", "cus_5")
    stripe.faults.extend(faults)
    with pytest.raises(StoppedError, match=r"\AStripe did not answer; the last request got status 500\Z"):
        await purge(stripe)
    assert (stripe.count("DELETE"), await left()) == ({}, ["cus_1", "cus_2", "cus_3"])


async def test_what_is_unknown_is_not_done_where_no_customer_shows_that_the_account_is_right(
    purge, erased, stripe, left, graph
):
    await graph.erase("u4")
    stripe.customers.clear()
    tally, _ = await purge(stripe, missing_is_done=True)
    assert (tally.unknown, len(await left())) == (4, 4)


async def test_a_customer_that_is_saved_again_meanwhile_is_not_deleted(purge, erased, stripe, graph, left):
    real = stripe.handle

    async def handle(request):
        if request.method == "DELETE" and not saved:
            saved.append(await graph.save("u9", "STRIPE", "cus_2"))
        return await real(request)

    saved = []
    stripe.handle = handle
    tally, lines = await purge(stripe)
    assert (tally.deleted, tally.saved_again) == (2, 1)
    assert lines == [("cus_1", "DELETED"), ("cus_2", "SAVED_AGAIN"), ("cus_3", "DELETED")]
    assert stripe.customers["cus_2"] == standin.LIVE


async def test_a_dry_run_lists_what_would_be_deleted(purge, erased, stripe, left):
    tally, lines = await purge(stripe, dry_run=True, skipped={"cus_3"}, limit=2)
    assert (tally.deleted, tally.would_delete, stripe.asked) == (0, 2, [])
    assert lines == [("cus_1", "WOULD_DELETE"), ("cus_2", "WOULD_DELETE")]
    assert len(await left()) == 3


async def test_a_limit_counts_what_was_asked_for(purge, erased, stripe, left):
    tally, _ = await purge(stripe, limit=1, skipped={"cus_1"})
    assert (tally.deleted, tally.skipped, await left()) == (1, 1, ["cus_1", "cus_3"])


@pytest.mark.parametrize("fault", [401, 403])
async def test_a_refused_key_stops_it(purge, erased, stripe, left, fault):
    stripe.faults.extend([None, fault])
    with pytest.raises(StoppedError, match="refuses the key"):
        await purge(stripe)
    assert len(await left()) == 3


async def test_only_the_customers_of_its_gateway_are_deleted(purge, erased, stripe, graph, tokens):
    await graph.save("u5", "MOLLIE", "cst_1")
    await graph.erase("u5")
    mollie = standin.Mollie()
    mollie.customers["cst_1"] = standin.LIVE
    tally, _ = await purge(mollie, name="MOLLIE", api=Mollie(is_test=False))
    assert (tally.deleted, mollie.customers, mollie.count("DELETE")) == (1, {"cst_1": "deleted"}, {"cst_1": 1})
