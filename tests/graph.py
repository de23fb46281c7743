"""What tests ask of the service by GraphQL: every mutation by name, answered as its payload, and whole tokens."""

FIELDS = (
    "id userId gateway gatewayCustomerId description metadata isActive createdAt updatedAt version deactivatedAt"
    " deactivationReason lastVerifiedAt formerGatewayCustomerIds"
)
HISTORY = "history { nodes { id action actor at version gatewayCustomerId isActive reason } }"
FEED = (
    "edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { id action"
    " actor at version gatewayCustomerId isActive reason tokenId gateway userId token { id version isActive userId } }"
)
_ERRORS = "userErrors { code message field }"
_CHANGED = f"gatewayToken {{ {FIELDS} }} user {{ id }} {_ERRORS}"
_BY_ID = {"id": "ID!", "expectedVersion": "Int"}
_CUSTOMER = {"gateway": "String!", "gatewayCustomerId": "String!"}

# By short name: the mutation, its arguments and what is asked of its payload.
MUTATIONS = {
    "create": ("createCustomerGatewayToken", {"input": "CreateCustomerGatewayTokenInput!"}, _CHANGED),
    "save": ("saveCustomerGatewayToken", {"input": "SaveCustomerGatewayTokenInput!"}, f"created {_CHANGED}"),
    "save_many": (
        "saveCustomerGatewayTokens",
        {"inputs": "[SaveCustomerGatewayTokenInput!]!", "onError": "BatchErrorPolicy!"},
        f"createdCount gatewayTokens {{ {FIELDS} }} {_ERRORS}",
    ),
    "update": ("updateCustomerGatewayToken", {"input": "UpdateCustomerGatewayTokenInput!"}, _CHANGED),
    "activate": ("activateCustomerGatewayToken", _BY_ID, _CHANGED),
    "deactivate": (
        "deactivateCustomerGatewayToken",
        _BY_ID | {"reason": "CustomerGatewayTokenDeactivationReason!"},
        _CHANGED,
    ),
    "delete": ("deleteCustomerGatewayToken", _BY_ID, f"deletedId user {{ id }} {_ERRORS}"),
    "deactivate_customer": (
        "deactivateGatewayCustomer",
        _CUSTOMER | {"reason": "CustomerGatewayTokenDeactivationReason!", "occurredAt": "DateTime"},
        _CHANGED,
    ),
    "verify": ("verifyGatewayCustomer", _CUSTOMER | {"at": "DateTime"}, _CHANGED),
    "claim": (
        "claimGatewayCustomer",
        {"userId": "ID!", "gateway": "String!", "leaseSeconds": "Int!"},
        f"gatewayToken {{ {FIELDS} }} claim {{ idempotencyKey expiresAt acquired replaces }} {_ERRORS}",
    ),
    "merge": (
        "mergeUserGatewayTokens",
        {"fromUserId": "ID!", "intoUserId": "ID!", "onConflict": "MergeConflictPolicy!", "dryRun": "Boolean!"},
        f"user {{ id }} moved {{ {FIELDS} }} conflicts {{ {FIELDS} }} winners {{ {FIELDS} }} {_ERRORS}",
    ),
    "release": (
        "releaseGatewayCustomerClaim",
        {"userId": "ID!", "gateway": "String!", "idempotencyKey": "String!"},
        f"released {_ERRORS}",
    ),
    "reassign": (
        "reassignGatewayCustomers",
        {"customers": "[ReassignGatewayCustomerInput!]!", "reason": "String"},
        f"gatewayTokens {{ {FIELDS} }} {_ERRORS}",
    ),
    "erase": ("eraseUserGatewayTokens", {"userId": "ID!"}, f"erased {{ gateway gatewayCustomerId }} {_ERRORS}"),
    "confirm": (
        "confirmGatewayErasures",
        {"customers": "[GatewayCustomerInput!]!"},
        f"confirmedCount {_ERRORS}",
    ),
    "lift": ("liftUserErasure", {"userId": "ID!"}, f"user {{ id }} {_ERRORS}"),
}


class Graph:
    """What a client may do, as methods: `await graph.save("u1", "STRIPE", "cus_1")` is the payload."""

    def __init__(self, client):
        self.client = client

    async def ask(self, query, **variables):
        """The data of an operation that goes well."""
        answer = await self.client(query, **variables)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    async def answer(self, name, **arguments):
        """The whole answer to a mutation, however it goes."""
        field, types, payload = MUTATIONS[name]
        declared = ", ".join(f"${argument}: {types[argument]}" for argument in arguments)
        passed = ", ".join(f"{argument}: ${argument}" for argument in arguments)
        return await self.client(f"mutation({declared}) {{ {field}({passed}) {{ {payload} }} }}", **arguments)

    async def mutate(self, name, **arguments):
        """The payload of a mutation that goes well."""
        answer = await self.answer(name, **arguments)
        assert "errors" not in answer, answer["errors"]
        return answer["data"][MUTATIONS[name][0]]

    async def create(self, user, gateway, customer, **rest):
        return await self.mutate("create", input=wanted(user, gateway, customer, **rest))

    async def save(self, user, gateway, customer, **rest):
        return await self.mutate("save", input=wanted(user, gateway, customer, **rest))

    async def save_many(self, inputs, **rest):
        return await self.mutate("save_many", inputs=inputs, **rest)

    async def update(self, token, **change):
        return await self.mutate("update", input={"id": token["id"], **change})

    async def activate(self, token, **rest):
        return await self.mutate("activate", id=token["id"], **rest)

    async def deactivate(self, token, **rest):
        return await self.mutate("deactivate", id=token["id"], **rest)

    async def delete(self, token, **rest):
        return await self.mutate("delete", id=token["id"], **rest)

    async def deactivate_customer(self, gateway, customer, **rest):
        return await self.mutate("deactivate_customer", gateway=gateway, gatewayCustomerId=customer, **rest)

    async def verify(self, gateway, customer, **rest):
        return await self.mutate("verify", gateway=gateway, gatewayCustomerId=customer, **rest)

    async def claim(self, user, gateway, **rest):
        return await self.mutate("claim", userId=user, gateway=gateway, **rest)

    async def release(self, user, gateway, key):
        return await self.mutate("release", userId=user, gateway=gateway, idempotencyKey=key)

    async def reassign(self, *customers, **rest):
        """Each customer is a gateway, an id and the user it belongs to."""
        names = ("gateway", "gatewayCustomerId", "toUserId")
        inputs = [dict(zip(names, each, strict=True)) for each in customers]
        return await self.mutate("reassign", customers=inputs, **rest)

    async def merge(self, from_user, into_user, **rest):
        return await self.mutate("merge", fromUserId=from_user, intoUserId=into_user, **rest)

    async def erase(self, user):
        return await self.mutate("erase", userId=user)

    async def confirm(self, *customers):
        named = [{"gateway": gateway, "gatewayCustomerId": customer} for gateway, customer in customers]
        return await self.mutate("confirm", customers=named)

    async def erasures(self, **arguments):
        """The list of customers to delete, as a page."""
        types = {"gateway": "String", "first": "Int", "after": "String"}
        declared = ", ".join(f"${name}: {types[name]}" for name in arguments)
        passed = ", ".join(f"{name}: ${name}" for name in arguments)
        data = await self.ask(
            f"query{f'({declared})' if declared else ''} {{ gatewayErasures{f'({passed})' if passed else ''} {{"
            " edges { cursor } nodes { gateway gatewayCustomerId erasedAt } pageInfo { hasNextPage"
            " hasPreviousPage endCursor } } }",
            **arguments,
        )
        return data["gatewayErasures"]

    async def feed(self, fields=FEED, **arguments):
        """A page of the change feed."""
        types = {
            "after": "String",
            "startAt": "EventStart!",
            "first": "Int",
            "filter": "CustomerGatewayTokenEventFilter",
        }
        declared = ", ".join(f"${name}: {types[name]}" for name in arguments)
        passed = ", ".join(f"{name}: ${name}" for name in arguments)
        data = await self.ask(
            f"query{f'({declared})' if declared else ''}"
            f" {{ customerGatewayTokenEvents{f'({passed})' if passed else ''} {{ {fields} }} }}",
            **arguments,
        )
        return data["customerGatewayTokenEvents"]

    async def lift(self, user):
        return await self.mutate("lift", userId=user)

    async def saved(self, user, gateway, customer, **rest):
        """The token that a save without problems answers."""
        return token_of(await self.save(user, gateway, customer, **rest))

    async def token(self, token_id):
        data = await self.ask(f"query($id: ID!) {{ customerGatewayToken(id: $id) {{ {FIELDS} }} }}", id=token_id)
        return data["customerGatewayToken"]

    async def customer(self, gateway, customer):
        """The token that is found by a gateway's own identifier."""
        data = await self.ask(
            "query($g: String!, $c: String!) {"
            f" customerGatewayTokenByCustomer(gateway: $g, gatewayCustomerId: $c) {{ {FIELDS} }} }}",
            g=gateway,
            c=customer,
        )
        return data["customerGatewayTokenByCustomer"]

    async def tokens(self, user):
        [found] = await self.entities([{"__typename": "User", "id": user}], f"gatewayTokens {{ {FIELDS} }}")
        return found["gatewayTokens"]

    async def history(self, token):
        """The lines of a token's history, newest first."""
        query = f"query($id: ID!) {{ customerGatewayToken(id: $id) {{ {HISTORY} }} }}"
        return (await self.ask(query, id=token["id"]))["customerGatewayToken"]["history"]["nodes"]

    async def entities(self, representations, of_user="id", of_token=FIELDS):
        query = (
            "query($r: [_Any!]!) { _entities(representations: $r) {"
            f" ... on User {{ {of_user} }} ... on CustomerGatewayToken {{ {of_token} }} }} }}"
        )
        return (await self.ask(query, r=representations))["_entities"]


def wanted(user, gateway, customer, **rest):
    """An input that names a user's customer at a gateway."""
    return {"userId": user, "gateway": gateway, "gatewayCustomerId": customer, **rest}


def token_of(payload):
    """The token of a payload that tells of no problem."""
    assert payload["userErrors"] == []
    return payload["gatewayToken"]


def problems(payload):
    """What a payload refuses: pairs of the code and the place."""
    assert all(len(error["message"]) > 20 for error in payload["userErrors"])
    return [(error["code"], error["field"]) for error in payload["userErrors"]]
