"""Users whose tokens and names another transaction has locked, and mutations that wait for that."""

from contextlib import asynccontextmanager
from zlib import crc32

from graphql_api.storage.tokens import _LOCKS, _STRIPES

SAVE = """mutation ($user: ID!, $customer: String!) { saveCustomerGatewayToken(
  input: {userId: $user, gateway: "STRIPE", gatewayCustomerId: $customer}) { userErrors { code } } }"""
MUTATIONS = {
    "saves": """mutation ($user: ID!, $customer: String!) { saveCustomerGatewayToken(input: {
        userId: $user, gateway: "STRIPE", gatewayCustomerId: $customer, description: "x"}) { userErrors { code } } }""",
    "saves of another customer": """mutation ($user: ID!) { saveCustomerGatewayToken(input: {
        userId: $user, gateway: "STRIPE", gatewayCustomerId: "another"}) { userErrors { code } } }""",
    "claims": """mutation ($user: ID!) {
        claimGatewayCustomer(userId: $user, gateway: "ADYEN") { userErrors { code } } }""",
    "erasures": "mutation ($user: ID!) { eraseUserGatewayTokens(userId: $user) { userErrors { code } } }",
}


def asking_to_save(user):
    return {"query": SAVE, "variables": {"user": user, "customer": user}}


def asking_for(kind, user):
    return {"query": MUTATIONS[kind], "variables": {"user": user, "customer": user}}


def stripe(user):
    """The number of the lock that transactions of this user take."""
    return crc32(user.encode()) % _STRIPES


@asynccontextmanager
async def locking(connection, users):
    """These users are locked meanwhile."""
    async with connection.transaction():
        await connection.execute("select from customer_gateway_tokens where user_id = any($1) for update", users)
        await connection.execute(
            "select pg_advisory_xact_lock($1, stripe) from unnest($2::int[]) as stripe",
            _LOCKS,
            sorted({*map(stripe, users)}),
        )
        yield
