"""What a request took is given back at once: what is left to the garbage collector piles up until it looks."""

import asyncio
import gc
import json
from contextlib import contextmanager

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.web.conftest import listening
from tests.web.test_transports import JSON, written

OF_VARIABLES = """query ($users: [_Any!]!) {
  _entities(representations: $users) { ... on User { gatewayTokens { id createdAt } } } }"""
OF_A_LITERAL = """query ($user: ID!) {
  _entities(representations: [{__typename: "User", id: $user}]) { ... on User { gatewayTokens { id } } } }"""
SAVE = """mutation ($input: SaveCustomerGatewayTokenInput!) {
  saveCustomerGatewayToken(input: $input) { gatewayToken { id } userErrors { code } } }"""
USERS = [{"__typename": "User", "id": f"u{number}"} for number in range(50)]
TOKEN = {"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}
MANY = 250  # the event loop keeps the contexts of up to a hundred timers that were cancelled, and what is in them


def post(query, **variables):
    return "POST", "/graphql", JSON, json.dumps({"query": query, "variables": variables}).encode()


REQUESTS = {
    "a user": post(OF_VARIABLES, users=USERS[:1]),
    "fifty users": post(OF_VARIABLES, users=USERS),
    "a user in a literal": post(OF_A_LITERAL, user="u1"),
    "a customer": post('{ customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1") { id } }'),
    "a page": post(
        "{ customerGatewayTokens(first: 5) { totalCount nodes { id history(first: 1) { nodes { at } } } } }"
    ),
    "a save": post(SAVE, input=TOKEN),
    "a save that is refused": post(SAVE, input=TOKEN | {"expectedVersion": 1}),
    "a list of errors": post(OF_VARIABLES, users=[1, 2, 3]),
    "a syntax error": post("{ a(b: [1 2 3"),
    "an unknown document with an error": post("{ nothing }"),
    "a health check": ("GET", "/healthz", {}, b""),
}


@contextmanager
def only_found_by_the_collector():
    """The names of the classes of what, in here, only the garbage collector found to be of no use any more."""
    found = set()
    gc.collect()
    gc.freeze()  # what was there before is not looked at again
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found |= {f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.unfreeze()
        gc.enable()
        gc.garbage.clear()


async def test_a_request_leaves_no_cycle_of_references(empty_database):
    app = create_app(Settings(database_url=empty_database, auth_mode="disabled"))
    left = {}
    async with listening(app, lifespan="on") as address:
        reader, writer = await asyncio.open_connection(*address)

        async def ask(name):
            writer.write(written(*REQUESTS[name]))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 200 OK")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
            return await reader.readexactly(int(length.split()[1]))

        for name in REQUESTS:
            for _ in range(3):  # what is made once is not of this request
                assert (b'"errors"' in await ask(name)) == ("error" in name)
            with only_found_by_the_collector() as found:
                for _ in range(MANY):
                    await ask(name)
            left[name] = {each for each in found if each.startswith(("graphql", "strawberry", "starlette", "uvicorn"))}
        writer.close()
    assert left == {name: set() for name in REQUESTS}
