"""The program on docs/payments.md, against the service and a Stripe that keeps its promises and no more."""

import asyncio
import re
from types import SimpleNamespace

import pytest

from graphql_api.domain.caller import ADMIN_SCOPE
from tests.docs.pages import ROOT
from tests.graph import Graph, problems

[PROGRAM] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/payments.md").read_text(), re.DOTALL)


class StripeError(Exception):
    def __init__(self, message="", http_status=None):
        super().__init__(message)
        self.http_status = http_status


class APIConnectionError(StripeError):
    pass


class Stripe:
    """Stores the first answer to a key, failures included but 409 and 429; refuses a key with other parameters."""

    StripeError, APIConnectionError = StripeError, APIConnectionError

    def __init__(self, *failures):
        self.failures = list(failures)
        self.answers = {}
        self.customers = []
        self.Customer = self

    def create(self, *, idempotency_key, **parameters):
        if idempotency_key not in self.answers:
            failure = self.failures.pop(0) if self.failures else None
            if isinstance(failure, StripeError) and failure.http_status in {409, 429}:
                raise failure
            if not isinstance(failure, StripeError) or isinstance(failure, APIConnectionError):
                self.customers.append(f"cus_{len(self.customers)}")
            answer = failure if type(failure) is StripeError else SimpleNamespace(id=self.customers[-1])
            self.answers[idempotency_key] = parameters, answer
            if isinstance(failure, APIConnectionError):
                raise failure  # it was made, and the answer is lost
        stored, answer = self.answers[idempotency_key]
        if stored != parameters:
            raise StripeError("idempotency_error")
        if isinstance(answer, StripeError):
            raise answer
        return answer


@pytest.fixture
async def checkout(graph_of_all):
    """Runs the page's program in a thread, as a checkout does."""
    names = {}
    exec(compile(PROGRAM, "docs/payments.md", "exec"), names)  # noqa: S102 - that is what the page is for
    loop = asyncio.get_running_loop()

    def ask(document, **variables):
        return asyncio.run_coroutine_threadsafe(graph_of_all.ask(document, **variables), loop).result()

    def wait():
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()

    async def run(stripe):
        return await asyncio.to_thread(names["customer_of"], "u1", ask, stripe, wait)

    return run


@pytest.fixture
def graph_of_all(as_service):
    return Graph(as_service(ADMIN_SCOPE))


async def test_of_many_checkouts_at_once_one_customer_is_made_and_all_get_it(checkout):
    stripe = Stripe()
    assert set(await asyncio.gather(*(checkout(stripe) for _ in range(5)))) == {"cus_0"}
    assert stripe.customers == ["cus_0"]


async def test_a_stored_failure_is_not_met_twice(checkout):
    stripe = Stripe(StripeError("card_error", 402))
    with pytest.raises(StripeError):
        await checkout(stripe)
    assert await checkout(stripe) == "cus_0"


@pytest.mark.parametrize("status", [409, 429])
async def test_a_refusal_that_stripe_does_not_store_keeps_the_key(status, checkout, graph_of_all, connection):
    key = (await graph_of_all.claim("u1", "STRIPE"))["claim"]["idempotencyKey"]
    await connection.execute("update gateway_customer_claims set expires_at = now()")
    with pytest.raises(StripeError):
        await checkout(Stripe(StripeError("refused", status)))
    assert (await graph_of_all.claim("u1", "STRIPE"))["claim"]["idempotencyKey"] == key


async def test_after_a_lost_answer_the_same_customer_is_found(checkout, connection):
    stripe = Stripe(APIConnectionError())
    with pytest.raises(APIConnectionError):
        await checkout(stripe)
    await connection.execute("update gateway_customer_claims set expires_at = now()")
    assert await checkout(stripe) == "cus_0"
    assert stripe.customers == ["cus_0"]


async def test_a_deleted_customer_is_replaced_by_one_of_many(checkout, graph_of_all):
    stripe = Stripe()
    await checkout(stripe)
    await graph_of_all.deactivate_customer("STRIPE", "cus_0")
    assert set(await asyncio.gather(*(checkout(stripe) for _ in range(3)))) == {"cus_1"}
    assert stripe.customers == ["cus_0", "cus_1"]


async def test_nobody_charges_or_replaces_a_customer_that_is_switched_off(checkout, graph_of_all):
    await graph_of_all.deactivate(await graph_of_all.saved("u1", "STRIPE", "cus_9"), reason="FRAUD")
    assert await checkout(Stripe()) is None
    await graph_of_all.erase("u1")
    assert await checkout(Stripe()) is None
    assert problems(await graph_of_all.claim("u1", "STRIPE")) == [("ERASED", ["userId"])]
