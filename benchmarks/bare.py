"""A yardstick: what a handler without GraphQL costs, with Starlette, asyncpg, orjson and statements by hand."""

import os
from contextlib import asynccontextmanager

import asyncpg
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TOKENS = """
select user_id, id::text, gateway, gateway_customer_id, is_active, created_at
from customer_gateway_tokens where user_id = any($1::text[])
"""
_LOOKUP = """
select id::text, user_id, gateway, gateway_customer_id, is_active, created_at
from customer_gateway_tokens where gateway_customer_id = $1 and gateway = $2
"""
_SAVE = """
update customer_gateway_tokens set description = $4, updated_at = clock_timestamp(), version = version + 1
where user_id = $1 and gateway = $2 and gateway_customer_id = $3
returning id::text, gateway, gateway_customer_id, is_active
"""


def _token(row: asyncpg.Record, *, with_user: bool = False) -> dict:
    token = {
        "id": row["id"],
        "gateway": row["gateway"],
        "gatewayCustomerId": row["gateway_customer_id"],
        "isActive": row["is_active"],
        "createdAt": row["created_at"].isoformat(timespec="microseconds"),
    }
    return {"id": token.pop("id"), "userId": row["user_id"], **token} if with_user else token


async def _entities(pool: asyncpg.Pool, variables: dict) -> dict:
    ids = [representation["id"] for representation in variables["r"]]
    found: dict[str, list] = {user_id: [] for user_id in ids}
    for row in sorted(await pool.fetch(_TOKENS, ids), key=lambda row: row["gateway"]):
        found[row["user_id"]].append(_token(row))
    return {"_entities": [{"gatewayTokens": found[user_id]} for user_id in ids]}


async def _lookup(pool: asyncpg.Pool, variables: dict) -> dict:
    row = await pool.fetchrow(_LOOKUP, variables["c"], variables["g"])
    return {"customerGatewayTokenByCustomer": _token(row, with_user=True)}


async def _save(pool: asyncpg.Pool, variables: dict) -> dict:
    given = variables["i"]
    row = await pool.fetchrow(
        _SAVE, given["userId"], given["gateway"], given["gatewayCustomerId"], given["description"]
    )
    token = {
        "id": row["id"],
        "gateway": row["gateway"],
        "gatewayCustomerId": row["gateway_customer_id"],
        "isActive": row["is_active"],
    }
    return {"saveCustomerGatewayToken": {"created": False, "gatewayToken": token, "userErrors": []}}


_HANDLERS = {"r": _entities, "c": _lookup, "i": _save}


async def _answer(request: Request) -> Response:
    variables = orjson.loads(await request.body())["variables"]
    handler = next(handler for name, handler in _HANDLERS.items() if name in variables)
    data = await handler(request.state.pool, variables)
    return Response(orjson.dumps({"data": data}), media_type="application/json")


@asynccontextmanager
async def _lifespan(_app: Starlette):
    settings = {"plan_cache_mode": "force_generic_plan", "jit": "off"}
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, server_settings=settings) as pool:
        yield {"pool": pool}


app = Starlette(routes=[Route("/graphql", _answer, methods=["POST"])], lifespan=_lifespan)
