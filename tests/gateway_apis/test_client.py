"""Asking at a rate: how often, how it slows down, and what it makes of each answer."""

import asyncio

import pytest

from graphql_api.gateway_apis.answers import Verdict
from graphql_api.gateway_apis.client import Pace, StoppedError
from graphql_api.gateway_apis.mollie import Mollie
from graphql_api.gateway_apis.stripe import Stripe
from tests.gateway_apis import standin
from tests.gateway_apis.conftest import client_of


@pytest.mark.parametrize("rate", [0.5, 25, 999])
async def test_it_keeps_to_its_rate(stripe, clock, rate):
    stripe.customers["cus_1"] = standin.LIVE
    async with client_of(stripe, clock, rate=rate) as client:
        for _ in range(1000):
            await client.customer("cus_1")
    assert clock.now - 1000 == pytest.approx(1000 / rate, rel=0.05)


@pytest.mark.parametrize("rate", [5, 25, 400])
async def test_no_second_has_more_requests_than_the_rate_and_a_quarter(clock, rate):
    """Also if the work pauses now and then: little of a pause is made up for."""
    pace, times = Pace(rate, clock, clock.sleep), []
    for number in range(2000):
        times.append(await pace.turn())
        if number % 100 == 0:
            clock.now += 3
    most = max(sum(1 for at in times if begin <= at < begin + 1) for begin in times[::7])
    assert most <= rate * 1.25 + 2


async def test_what_waits_for_its_turn_waits_on_if_the_gateway_asks_to(clock):
    pace, times = Pace(10, clock, clock.sleep), []

    async def ask():
        times.append(await pace.turn())

    waiting = [asyncio.ensure_future(ask()) for _ in range(5)]
    await asyncio.sleep(0)
    pace.slow_down(60)
    await asyncio.gather(*waiting)
    assert sum(at >= 1060 for at in times) >= 4
    assert pace.rate == 5
    for _ in range(1000):
        pace.recover()
    assert pace.rate == 10


async def test_several_that_come_too_soon_at_once_count_once(stripe, clock):
    stripe.customers.update({f"cus_{n}": standin.LIVE for n in range(8)})
    stripe.faults.extend([(429, 1)] * 8)
    async with client_of(stripe, clock) as client:
        answers = await asyncio.gather(*(client.customer(f"cus_{n}") for n in range(8)))
    assert {answer.verdict for answer in answers} == {Verdict.EXISTS}
    assert (client.pace.rate > 1e6 / 8, client.throttled) == (True, 8)


@pytest.mark.parametrize(("header", "waits"), [("7", 7), ("0.5", 0.5), ("soon", 2), ("-1", 2)])
async def test_it_waits_as_long_as_it_is_told(stripe, clock, header, waits):
    stripe.customers["cus_1"] = standin.LIVE
    stripe.faults.append((429, header))
    async with client_of(stripe, clock) as client:
        await client.customer("cus_1")
    assert clock.now - 1000 == pytest.approx(waits, abs=0.01)


async def test_it_does_not_wait_for_hours(stripe, clock):
    stripe.faults.append((429, 3600))
    async with client_of(stripe, clock) as client:
        with pytest.raises(StoppedError, match="asks to wait for 3,600 seconds"):
            await client.customer("cus_1")


async def test_whose_time_is_over_is_not_asked_for(stripe, clock):
    async with client_of(stripe, clock) as client:
        assert (await client.customer("cus_1", clock.now)).verdict is Verdict.LATE
    assert stripe.asked == []


EXISTS, GONE, UNKNOWN, OUTAGE = Verdict.EXISTS, Verdict.GONE, Verdict.UNKNOWN, Verdict.OUTAGE
LIVE, TEST, DELETED = standin.LIVE, standin.TEST, standin.DELETED


@pytest.mark.parametrize(("api", "gateway"), [(Stripe, standin.Stripe), (Mollie, standin.Mollie)])
@pytest.mark.parametrize(
    ("state", "asked", "deleted", "asked_then"),
    [(LIVE, EXISTS, GONE, GONE), (DELETED, GONE, None, GONE), (None, UNKNOWN, UNKNOWN, UNKNOWN)],
)
async def test_each_state_of_a_customer_has_its_answer(clock, api, gateway, state, asked, deleted, asked_then):
    there = gateway()
    there.customers = {"cus 1@x": state} if state else {}
    async with client_of(there, clock, api=api(is_test=False)) as client:
        assert (await client.customer("cus 1@x")).verdict is asked
        # Stripe does not know a deleted customer by DELETE, and Mollie does.
        expected = deleted or {"Stripe": UNKNOWN, "Mollie": GONE}[client.api.name]
        assert (await client.delete("cus 1@x")).verdict is expected
        assert (await client.customer("cus 1@x")).verdict is asked_then
        await client.probe()


@pytest.mark.parametrize("api", [Stripe, Mollie])
@pytest.mark.parametrize("is_test", [True, False])
async def test_the_mode_of_a_customer_has_to_be_the_gateways(clock, api, is_test):
    there = standin.Stripe() if api is Stripe else standin.Mollie()
    there.mode = LIVE if is_test else TEST
    there.customers = {"c": there.mode}
    async with client_of(there, clock, api=api(is_test=is_test)) as client:
        with pytest.raises(StoppedError, match="answers for the other mode"):
            await client.customer("c")


@pytest.mark.parametrize(
    ("api", "status", "body"),
    [
        (Stripe, 200, {"object": "customer", "id": "another"}),
        (Stripe, 200, {"object": "customer", "id": "another", "deleted": True}),
        (Stripe, 200, {"object": "charge", "id": "c"}),
        (Stripe, 200, []),
        (Stripe, 404, {"error": {"message": "Unrecognized request URL"}}),
        (Stripe, 410, {"error": {}}),
        (Stripe, 204, None),
        (Mollie, 200, {"resource": "customer", "id": "another", "mode": "live"}),
        (Mollie, 404, {"message": "no route"}),
        (Mollie, 410, "<html>"),
        (Mollie, 204, None),
    ],
)
async def test_what_is_no_answer_about_the_customer_is_an_outage(clock, api, status, body):
    there = standin.StandIn()
    there.answer = lambda *_: (status, body)
    async with client_of(there, clock, api=api(is_test=False)) as client:
        assert (await client.customer("c")).verdict is OUTAGE


@pytest.mark.parametrize(("api", "gateway"), [(Stripe, standin.Stripe), (Mollie, standin.Mollie)])
async def test_an_id_that_the_gateway_calls_malformed_is_unknown(clock, api, gateway):
    there = gateway()
    there.faults.append(400)
    async with client_of(there, clock, api=api(is_test=False)) as client:
        assert (await client.customer("c")).verdict is UNKNOWN
