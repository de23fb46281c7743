"""A check of Mollie, which has no list of deletions."""

import pytest

from graphql_api.gateway_apis.mollie import Mollie
from tests.gateway_apis import standin
from tests.gateway_apis.standin import serving


@pytest.fixture
async def mollie(graph):
    """Four customers, of whom one is deleted and one unknown."""
    mollie = standin.Mollie("live_thisIsTheKeyOfTheTests")
    for number in range(1, 5):
        await graph.save(f"u{number}", "MOLLIE", f"cst_{number}")
        mollie.customers[f"cst_{number}"] = standin.LIVE
    mollie.delete("cst_2")
    del mollie.customers["cst_3"]
    return mollie


async def test_what_is_gone_is_told_from_what_is_unknown(check, mollie, graph):
    tally, lines = await check(mollie, name="MOLLIE", api=Mollie(is_test=False))
    assert (tally.deletions, tally.verified, tally.gone, tally.unknown) == (0, 2, 1, 1)
    assert [(line.reason, line.customer) for line in lines] == [("DELETED", "cst_2"), ("UNKNOWN", "cst_3")]
    states = [(await graph.customer("MOLLIE", f"cst_{number}"))["isActive"] for number in range(1, 5)]
    assert states == [True, False, True, True]
    assert "events" not in mollie.count()


async def test_the_command_finds_its_key_by_the_gateway(command, mollie, monkeypatch):
    with serving(mollie) as url:
        monkeypatch.setenv("MOLLIE_API_KEY", mollie.key)
        monkeypatch.setenv("MOLLIE_API_BASE", url)
        outcome = await command("check", "--gateway", "mollie", "--rate", "1000")
    assert (outcome.status, "2 verified, 0 activated, 1 deactivated, 1 unknown there" in outcome.err) == (1, True)
