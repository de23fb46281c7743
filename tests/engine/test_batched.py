"""Fields that load by their parent: how often they are asked, what they are told, and JSON that is there already."""

import asyncio
from dataclasses import dataclass, field

import orjson
import pytest
import strawberry

from graphql_api.engine import Engine, JSONField, RawJSON, Selection, batched, reads, selection_of


@dataclass
class Context:
    loaders: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    json: bool = False


@dataclass
class Call:
    field: str
    parents: list
    selection: Selection | None
    arguments: dict


def noted(info, field, parents, selection, **arguments):
    info.context.calls.append(Call(field, [parent.id for parent in parents], selection, arguments))


async def tokens_of(parents: list, info: strawberry.Info, *, selection, gateway: str | None = None) -> list:
    noted(info, "tokens", parents, selection, gateway=gateway)
    await asyncio.sleep(0)
    if info.context.json and selection is not None and selection.json is not None:
        return [RawJSON(b'[{"written":"elsewhere"}]') for _ in parents]
    return [[Token(id=f"{parent.id}{letter}", user_id=parent.id) for letter in "ab"] for parent in parents]


async def token_of(parents: list, info: strawberry.Info, *, selection) -> list:
    noted(info, "token", parents, selection)
    if info.context.json and selection is not None and selection.json is not None:
        return [RawJSON(b'{"written":"elsewhere"}') for _ in parents]
    return [Token(id=f"{parent.id}t", user_id=parent.id) for parent in parents]


async def users_of(parents: list, info: strawberry.Info, *, selection) -> list:
    noted(info, "user", parents, selection)
    return [User(id=parent.user_id) for parent in parents]


async def former_of(parents: list, info: strawberry.Info, *, selection) -> list:
    noted(info, "former", parents, selection)
    return [[f"{parent.id}-old"] for parent in parents]


@strawberry.type
class Owner:
    name: str


@strawberry.type
class Token:
    id: strawberry.ID
    user_id: strawberry.ID
    number: int = 1
    owner: Owner | None = None
    user: "User" = batched(users_of, reads=("user_id",))
    former: list[str] = batched(former_of, reads=("id", "number"))

    @strawberry.field(metadata=reads("number"))
    def doubled(self) -> int:
        return self.number * 2

    @strawberry.field
    def anything(self) -> int:
        return self.number

    @strawberry.field(metadata=reads())
    def constant(self) -> int:
        return 1


@strawberry.type
class User:
    id: strawberry.ID
    tokens: list[Token] | None = batched(tokens_of)
    token: Token | None = batched(token_of)


@strawberry.type
class Query:
    @strawberry.field
    def users(self, count: int = 3) -> list[User]:
        return [User(id=str(number)) for number in range(count)]

    @strawberry.field
    async def later_users(self, count: int = 3) -> list[User]:
        async def user(number):
            return User(id=str(number))

        return [user(number) for number in range(count)]

    @strawberry.field
    def broken_users(self) -> list[User | None]:
        return [User(id="a"), User(id=None), User(id="c")]

    @strawberry.field
    def all_broken_users(self) -> list[User | None]:
        return [User(id=None)]

    @strawberry.field
    def user(self) -> User:
        return User(id="u")

    @strawberry.field
    def token(self, info: strawberry.Info) -> Token | None:
        selection = selection_of(info)
        noted(info, "root", [], selection)
        if info.context.json and selection is not None and selection.json is not None:
            return RawJSON(b'{"written":"elsewhere"}')
        return Token(id="t", user_id="u")

    @strawberry.field
    async def either(self, info: strawberry.Info) -> list[User | Token | None]:
        noted(info, "root", [], selection_of(info, "Token"))
        assert selection_of(info) is None
        if info.context.json:
            return [User(id="u"), RawJSON(b'{"written":"elsewhere"}'), None]
        return [User(id="u"), Token(id="t", user_id="u"), None]


SCHEMA = strawberry.Schema(query=Query)._schema
COMPILED, CORE = Engine(SCHEMA), Engine(SCHEMA, mode="graphql-core")
BOTH = pytest.mark.parametrize("engine", [COMPILED, CORE], ids=["compiled", "graphql-core"])


async def run(engine, query, variables=None, **options):
    """The answer as a client sees it, and the context with what was called."""
    context = Context(**options)
    result = engine.prepare(query).execute(variables, context)
    if not isinstance(result, tuple):
        result = await result
    assert not result.errors, result.errors
    return orjson.loads(orjson.dumps(result.data)), context


@BOTH
async def test_a_list_of_parents_costs_one_call(engine):
    data, context = await run(engine, "{ users { tokens { id } } }")
    assert [user["tokens"][1]["id"] for user in data["users"]] == ["0b", "1b", "2b"]
    assert [call.parents for call in context.calls] == [["0", "1", "2"]]


@BOTH
async def test_parents_that_are_awaited_together_cost_one_call(engine):
    _, context = await run(engine, "{ laterUsers { tokens { id } } }")
    assert [sorted(call.parents) for call in context.calls] == [["0", "1", "2"]]


@BOTH
async def test_lists_in_lists_cost_one_call_for_each_level(engine):
    data, context = await run(engine, "{ users(count: 2) { tokens { former user { tokens { user { id } } } } } }")
    assert [(call.field, len(call.parents)) for call in context.calls] == [
        ("tokens", 2), ("former", 4), ("user", 4), ("tokens", 4), ("user", 8),
    ]  # fmt: skip
    assert data["users"][1]["tokens"][0]["user"]["tokens"][1]["user"] == {"id": "1"}


@BOTH
async def test_arguments_and_aliases_are_kept_apart(engine):
    aliases = 'a: tokens(gateway: $g) { id } b: tokens(gateway: "B") { id } tokens { id }'
    query = f"query ($g: String) {{ users(count: 1) {{ {aliases} }} }}"
    _, context = await run(engine, query, {"g": "A"})
    assert [call.arguments["gateway"] for call in context.calls] == ["A", "B", None]


@BOTH
async def test_one_object_is_asked_for_alone(engine):
    data, context = await run(engine, "{ user { tokens { id } } }")
    assert data == {"user": {"tokens": [{"id": "ua"}, {"id": "ub"}]}}
    assert [call.parents for call in context.calls] == [["u"]]


@BOTH
async def test_two_executions_on_one_context_do_not_share_arguments(engine):
    operation = engine.prepare("query ($g: String) { user { tokens(gateway: $g) { id } } }")
    context = Context()
    for gateway in ("A", "B"):
        await operation.execute({"g": gateway}, context)
    assert [call.arguments["gateway"] for call in context.calls] == ["A", "B"]


@BOTH
async def test_no_parent_no_call(engine):
    _, context = await run(engine, "{ users(count: 0) { tokens { id } } }")
    assert context.calls == []


async def test_objects_that_an_error_made_null_are_not_asked_for():
    context = Context()
    query = "{ brokenUsers { tokens { id } id } allBrokenUsers { tokens { id } id } }"
    result = await COMPILED.prepare(query).execute({}, context)
    assert [user and user["id"] for user in result.data["brokenUsers"]] == ["a", None, "c"]
    assert [call.parents for call in context.calls] == [["a", "c"]]
    assert result.data["brokenUsers"][2]["tokens"][0] == {"id": "ca"}
    assert [error.path for error in result.errors] == [["brokenUsers", 1, "id"], ["allBrokenUsers", 0, "id"]]


@BOTH
async def test_a_batched_field_of_the_root_has_no_parent_to_load_by(engine):
    loaded = batched(lambda *_, **__: None)
    query = strawberry.type(type("Query", (), {"__annotations__": {"loaded": int | None}, "loaded": loaded}))
    rooted = Engine(strawberry.Schema(query=query)._schema, mode="compiled" if engine is COMPILED else "graphql-core")
    result = rooted.prepare("{ loaded }").execute({}, Context())
    assert "must be called with a value" in result.errors[0].message


# --- what a function is told


async def selection_below(query, **options):
    _, context = await run(COMPILED, query, **options)
    return context.calls[0].selection


async def test_graphql_core_tells_nothing_of_the_selection():
    _, context = await run(CORE, "{ users { tokens { id } token { id } } token { id } }")
    assert [call.selection for call in context.calls] == [None, None, None]


async def test_plain_fields_can_be_written_as_json():
    selection = await selection_below(
        "{ users { tokens { number id __typename ...F } } } fragment F on Token { userId }"
    )
    assert selection.attributes == {"id", "number", "user_id"}
    assert selection.json == (
        JSONField("number", "number"),
        JSONField("id", "id"),
        JSONField("__typename", None, "Token"),
        JSONField("userId", "user_id"),
    )


@pytest.mark.parametrize("fields", ["n: number", "id t: __typename"])
async def test_what_has_an_alias_is_never_written_as_json(fields):
    assert (await selection_below(f"{{ users {{ tokens {{ {fields} }} }} }}")).json is None


async def test_skipped_fields_are_not_asked_for():
    query = "query ($s: Boolean!) { user { tokens { id @skip(if: $s) number @include(if: $s) } } }"
    for skipped, attribute in ((True, "number"), (False, "id")):
        _, context = await run(COMPILED, query, {"s": skipped})
        assert context.calls[0].selection.attributes == {attribute}


@pytest.mark.parametrize(
    ("fields", "attributes"),
    [
        ("id user { id }", {"id", "user_id"}),
        ("former", {"id", "number"}),
        ("doubled", {"number"}),
        ("constant", set()),
        ("owner { name }", {"owner"}),
        ("id anything", None),
    ],
)
async def test_fields_that_are_not_plain_say_what_they_read(fields, attributes):
    selection = await selection_below(f"{{ users {{ tokens {{ {fields} }} }} }}")
    assert selection.attributes == attributes
    assert selection.json is None


async def test_a_selection_is_the_same_each_time():
    query = "{ users { tokens { id } } }"
    assert await selection_below(query) is await selection_below(query)
    assert len({await selection_below(query): 1}) == 1


async def test_a_resolver_can_ask_what_is_asked_of_it():
    assert (await selection_below("{ token { id doubled } }")).attributes == {"id", "number"}


async def test_a_resolver_of_a_union_can_ask_for_each_type():
    selection = await selection_below("{ either { ... on User { id } ... on Token { id number } } }")
    assert selection.attributes == {"id", "number"}


async def test_a_leaf_has_no_selection():
    _, context = await run(COMPILED, "{ users { tokens { former } } }")
    assert context.calls[1].selection is None


# --- JSON that is there already

WRITTEN = {"written": "elsewhere"}


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("{ users(count: 1) { id tokens { id } } }", {"users": [{"id": "0", "tokens": [WRITTEN]}]}),
        ("{ users(count: 1) { token { id } id } }", {"users": [{"token": WRITTEN, "id": "0"}]}),
        ("{ user { tokens { id } } }", {"user": {"tokens": [WRITTEN]}}),
        ("{ token { id } }", {"token": WRITTEN}),
        ("{ either { ... on User { id } ... on Token { id } } }", {"either": [{"id": "u"}, WRITTEN, None]}),
        (
            "{ user { tokens { id user { id } } } }",
            {"user": {"tokens": [{"id": f"u{c}", "user": {"id": "u"}} for c in "ab"]}},
        ),
    ],
)
async def test_json_is_put_into_the_answer_as_it_is(query, answer):
    data, _ = await run(COMPILED, query, json=True)
    assert data == answer


async def test_json_for_what_is_not_plain_is_an_error():
    @strawberry.type
    class Hasty:
        @strawberry.field
        def token(self) -> Token | None:
            return RawJSON(b"{}")

        @strawberry.field
        def tokens(self) -> list[Token] | None:
            return RawJSON(b"[]")

    engine = Engine(strawberry.Schema(query=Hasty)._schema)
    result = engine.prepare("{ token { anything } tokens { anything } }").execute({}, Context())
    assert result.data == {"token": None, "tokens": None}
    assert [error.path for error in result.errors] == [["token", "anything"], ["tokens"]]
