"""How values of the contract's scalars are read and written."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from graphql import GraphQLError, is_scalar_type, is_specified_scalar_type, parse_value
from hypothesis import example, given
from hypothesis import strategies as st

from graphql_api.schema import build_schema
from graphql_api.schema.scalars import instant, written

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
FIRST, LAST = (datetime(*day) for day in ((1, 1, 2), (9999, 12, 30)))  # noqa: DTZ001 - Hypothesis adds the zone
INSTANTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC) | OFFSETS)


@given(INSTANTS)
@example(datetime(1, 1, 2, tzinfo=UTC))
@example(datetime(987, 6, 5, 4, 3, 2, 1, tzinfo=UTC))
@example(datetime(2026, 11, 27, 12, 0, 0, 100_000, tzinfo=UTC))
def test_an_instant_is_written_in_utc_with_six_digits_of_its_second(instant):
    at = instant.astimezone(UTC)
    assert written(instant) == f"{at:%Y}".zfill(4) + f"-{at:%m-%dT%H:%M:%S.%f}+00:00"


@given(INSTANTS)
def test_an_instant_is_read_as_it_is_written_in_any_case(at):
    assert instant(written(at).lower()) == instant(written(at)) == at


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2025-01-06T09:00:10z", 0),
        ("2025-01-06t12:00:10+03:00", 0),
        ("2025-01-06T09:00:10.1Z", 100_000),
        ("2025-01-06T09:00:10.123456789Z", 123_456),
        ("2025-01-06T09:00:10-00:00", 0),
    ],
)
def test_the_forms_of_the_specification_are_taken(text, microsecond):
    assert instant(text) == datetime(2025, 1, 6, 9, 0, 10, microsecond, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2025-01-06T09:00:10",
        "2025-01-06T09:00:10.Z",
        "2025-01-06T09:00:10.1234567890Z",
        "2025-01-06T09:00:10+01:00:30",
        "2025-01-06T09:00:10+0100",
        "2025-01-06 09:00:10Z",
        "20250106T090010Z",
        "2025-W02-1T09:00:10Z",
        "2025-01-06T09:00Z",
        "2025-01-06T24:00:00Z",
        "2025-01-06T09:00:10 UTC",
        "2025-01-06",
        "\uff12025-01-06T09:00:10Z",
        1736154010,
        None,
    ],
)
def test_another_form_is_refused(value):
    with pytest.raises(GraphQLError, match="ISO 8601 with a UTC offset"):
        instant(value)


IMPOSSIBLE = [
    f"2025-{rest}" for rest in ("13-01T00:00:00Z", "02-30T00:00:00Z", "01-06T09:60:00Z", "01-06T09:00:10+24:00")
]


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", *IMPOSSIBLE])
def test_what_no_instant_is_or_none_in_range_is_told_the_range(text):
    with pytest.raises(GraphQLError, match=r"0001-01-01.*9999-12-31"):
        instant(text)


def test_the_description_of_the_scalar_says_the_range_that_its_messages_say():
    [scalar] = [scalar for scalar in custom_scalars() if scalar.name == "DateTime"]
    with pytest.raises(GraphQLError) as refused:
        instant("0001-01-01T00:00:00Z")
    told = "after 0001-01-01T00:00:00Z and before 9999-12-31T23:59:59.999999Z"
    assert told in scalar.description
    assert told in refused.value.message


LITERALS = [
    ("{order: $v, a: 1}", {"a": 1}),
    ("{a: [$v, 1, [$v]]}", {"a": [None, 1, [None]]}),
    ("{a: {b: {c: $v}, d: 2}}", {"a": {"b": {}, "d": 2}}),
]


@pytest.mark.parametrize("type_", ["JSON", "String"])
@pytest.mark.parametrize(("literal", "stored"), LITERALS)
@pytest.mark.parametrize("engine", ["compiled", "graphql-core"])
async def test_a_variable_without_a_value_leaves_its_key_out_of_a_literal(service_with, engine, literal, stored, type_):
    graph = await service_with(engine=engine)
    answer = await graph.client(
        f'mutation($v: {type_}) {{ saveCustomerGatewayToken(input: {{userId: "u1", gateway: "STRIPE",'
        f' gatewayCustomerId: "cus_1", metadata: {literal}}})'
        " { gatewayToken { metadata } userErrors { code } } }"
    )
    assert answer == {"data": {"saveCustomerGatewayToken": {"gatewayToken": {"metadata": stored}, "userErrors": []}}}


def custom_scalars():
    types = build_schema()._schema.type_map.values()
    return [type_ for type_ in types if is_scalar_type(type_) and not is_specified_scalar_type(type_)]


@pytest.mark.parametrize("scalar", custom_scalars(), ids=str)
@pytest.mark.parametrize("literal", ["[$v]", "{a: $v}", "{a: [{b: $v}, $v]}", "[[$v], 1]"])
def test_no_scalar_of_ours_is_given_a_variable_that_has_no_value(scalar, literal):
    with suppress(GraphQLError):  # a scalar that takes no such literal
        assert "Undefined" not in repr(scalar.parse_literal(parse_value(literal), {}))


@pytest.mark.parametrize("engine", ["compiled", "graphql-core"])
async def test_a_wrong_time_in_a_document_is_quoted_and_has_its_place(service_with, engine):
    graph = await service_with(engine=engine)
    answer = await graph.client('{ customerGatewayTokens(filter: {createdAfter: "2025"}) { totalCount } }')
    [error] = answer["errors"]
    assert error["message"].endswith(", not '2025'.")
    assert error["locations"] == [{"line": 1, "column": 48}]


@pytest.mark.parametrize("engine", ["compiled", "graphql-core"])
async def test_a_representation_in_a_literal_may_lack_variables(service_with, engine):
    graph = await service_with(engine=engine)
    ask = "query($v: String) { _entities(representations: [%s]) { ... on User { id } } }"
    answer = await graph.client(ask % '{__typename: "User", id: "u1", other: $v}')
    assert answer == {"data": {"_entities": [{"id": "u1"}]}}
    answer = await graph.client(ask % '{__typename: "User", id: $v}')
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]
