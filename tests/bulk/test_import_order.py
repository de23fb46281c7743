"""An import ends as if its lines had been saved one after another, whatever they have in common and came before."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from graphql_api.bulk.identifiers import _damage
from graphql_api.bulk.importing import Parser, import_tokens, save_input
from graphql_api.domain.errors import InputError
from graphql_api.domain.inputs import Gateways, Save
from graphql_api.domain.token import Given
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore

TEXT = st.text(max_size=30) | st.sampled_from(
    ["", "4111111111111111", "4111 1111 1111 1111", "\ud800", "\0", "x" * 2001]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RECORD = st.fixed_dictionaries(
    {"userId": TEXT, "gateway": TEXT | st.sampled_from(["stripe", " A "]), "gatewayCustomerId": TEXT},
    optional={"description": st.none() | TEXT, "metadata": JSON, "isActive": st.none() | st.booleans()},
)
# Few users, customers and gateways, so that lines have much in common.
LINE = st.fixed_dictionaries(
    {
        "userId": st.sampled_from(["u1", "u2", "u3", "erased"]),
        "gateway": st.sampled_from(["A", "a", "B"]),
        "gatewayCustomerId": st.sampled_from(["c1", "c2", "c3", "c4"]),
    },
    optional={
        "description": st.sampled_from([None, "", "x"]),
        "metadata": st.sampled_from([None, {}, {"a": 1}, {"a": 1.0}, {"a": True}]),
        "isActive": st.booleans(),
    },
)


@settings(max_examples=300, deadline=None)
@given(RECORD)
def test_a_record_is_checked_as_an_input_of_a_mutation_is(record):
    # Only a file has passed through a spreadsheet.
    assume(not any(_damage(record[name]) for name in ("userId", "gatewayCustomerId")))
    parsed = problems_or(lambda: save_input(Parser(Gateways()).row(1, record, datetime.now(UTC)), None))
    assert parsed == problems_or(lambda: save_of(record))


def save_of(record):
    given_ = {name: Given(record[name]) for name in ("description", "metadata", "isActive") if name in record}
    save = Save.parse(
        Gateways(),
        user_id=record["userId"],
        gateway=record["gateway"],
        gateway_customer_id=record["gatewayCustomerId"],
        description=given_.get("description"),
        metadata=given_.get("metadata"),
        is_active=given_.get("isActive"),
    )
    if save.refused_as_new:
        raise save.refused_as_new
    return save


def problems_or(parse):
    try:
        return parse()
    except InputError as refused:
        return {(problem.field, problem.code) for problem in refused.problems}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(LINE, max_size=6),
    lines=st.lists(LINE, min_size=1, max_size=25),
    max_lines=st.sampled_from([3, 100]),
)
async def test_an_import_ends_as_saves_one_after_another_do(
    graph, database_url, empty, everything, before, lines, max_lines
):
    async def begin():
        await empty()
        await graph.erase("erased")
        await graph.save_many(before, onError="CONTINUE")

    await begin()
    refused = []
    for number, line in enumerate(lines, 1):
        errors = (await graph.mutate("save", input=line))["userErrors"]
        refused += [(number, tuple(error["field"][1:]), error["code"]) for error in errors]
    expected = await everything()

    await begin()
    rejected = []
    async with ConnectionPool.open(database_url, size=2) as database:
        records = iter(list(enumerate(lines, 1)))
        async for report in import_tokens(TokenStore(database), Gateways(), records, max_lines=max_lines):
            rejected += [
                (line, each.field, each.code.value) for line, problems, _ in report.rejected for each in problems
            ]
    assert rejected == refused
    assert await everything() == expected


@pytest.mark.parametrize("has_id", [True, False], ids=["id", "no id"])
async def test_an_older_export_does_not_deactivate_a_token_that_was_created_after_it(command, folder, graph, has_id):
    """Only what it says of the gateway counts for the customer's next token."""
    await graph.save("u1", "A", "c1")
    await graph.deactivate(await graph.customer("A", "c1"), reason="FRAUD")
    await command("export", "old.jsonl")
    [record] = map(json.loads, (folder / "old.jsonl").read_text().splitlines())
    (folder / "old.jsonl").write_text(json.dumps(record if has_id else {**record, "id": None}))
    await graph.delete(await graph.customer("A", "c1"))
    await graph.save("u1", "A", "c1")
    before = await graph.customer("A", "c1")
    await command("import", "old.jsonl")
    assert await graph.customer("A", "c1") == before
    await graph.delete(before)
    (folder / "old.jsonl").write_text(json.dumps({**record, "id": None}))
    await command("import", "old.jsonl")
    assert (await graph.customer("A", "c1"))["deactivationReason"] == "FRAUD"
