"""The selects on tokens, built from the SQLModel table and compiled once for each set of columns."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    FromClause,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP, aggregate_order_by, asyncpg
from sqlmodel import SQLModel

from graphql_api.storage.connection import Reads, Statement, rows_with
from graphql_api.storage.models import CustomerGatewayTokenRow, GatewayCustomerRow

_DIALECT = asyncpg.dialect()
_CACHED = 256


def _table(model: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[vars(model)["__tablename__"]]


TOKENS: Table = _table(CustomerGatewayTokenRow)
CUSTOMERS: Table = _table(GatewayCustomerRow)
ALL: tuple[str, ...] = tuple(TOKENS.c.keys())

# What a list of tokens looks like in an answer: the response key of each field, and the column it shows; None for
# `__typename`, whose value is given.
JsonField = tuple[str, str | None, str | None]


def statement(
    name: str,
    query: Select[*tuple[Any, ...]],
    arguments: Sequence[str],
    names: Sequence[str],
    *,
    distributed: str = "",
) -> Statement:
    """The query under this name, with its arguments in this order; its rows have these attributes."""
    reads = Reads.LIST if name in _LISTS else Reads.BY_KEY
    return Statement(name, _sql(query, arguments), rows_with(names), sql_distributed=distributed, reads=reads)


def _sql(query: Select[*tuple[Any, ...]], arguments: Sequence[str]) -> str:
    compiled = query.compile(dialect=_DIALECT)
    if list(compiled.positiontup or ()) != list(arguments):
        raise TypeError(f"the query takes {compiled.positiontup}, not {arguments}")
    return compiled.string


_LISTS = {"page", "count"}


_SEPARATOR = "\x01"
_ENCODABLE = (*range(2, 0xD800), *range(0xE000, 0xF000))  # more than users of one statement can have used up


def joined(texts: Sequence[str]) -> tuple[str, str]:
    """Texts as one, and what stands between them: the driver looks at each text of an array, which takes longer."""
    text = _SEPARATOR.join(texts)
    if text.count(_SEPARATOR) <= max(len(texts) - 1, 0):
        return text, _SEPARATOR
    used = set(text)
    separator = next(each for code in _ENCODABLE if (each := chr(code)) not in used)
    return separator.join(texts), separator


def joined_pairs(pairs: Sequence[tuple[str, str]]) -> tuple[str, str, str]:
    """The first of each pair as one text, what stands between them, and the second of each; an empty text is lost."""
    _, separator = joined([text for pair in pairs for text in pair])
    return separator.join([first for first, _ in pairs]), separator, separator.join([second for _, second in pairs])


def columns_of(wanted: frozenset[str] | None) -> tuple[str, ...]:
    """The columns to read, in the table's order: these and the owner, who decides who may see the rest."""
    return ALL if wanted is None else tuple(name for name in ALL if name in wanted or name == "user_id")


@lru_cache(_CACHED)
def by_ids(wanted: frozenset[str] | None) -> Statement:
    """`$1` ids."""
    names = columns_of(None if wanted is None else wanted | {"id"})
    query = select(*_columns(TOKENS, names)).where(TOKENS.c.id == any_(_array("ids", Uuid(as_uuid=False))))
    return statement("by_ids", query, ["ids"], names)


@lru_cache(_CACHED)
def by_users_and_gateways(wanted: frozenset[str] | None) -> Statement:
    """`$1` user ids, `$2` gateways, in pairs."""
    keys = _pairs("user_id", "gateway")
    names = columns_of(None if wanted is None else wanted | {"gateway"})
    on = and_(TOKENS.c.user_id == keys.c.user_id, TOKENS.c.gateway == keys.c.gateway)
    query = select(*_columns(TOKENS, names)).select_from(keys.join(TOKENS, on))
    of_each = _of_each(names, "$1::text[], $2::text[]", "token_at(keys.first, keys.gateway)")
    return statement("by_users_and_gateways", query, ["user_id", "gateway"], names, distributed=of_each)


@lru_cache(_CACHED)
def by_current_customers(wanted: frozenset[str] | None) -> Statement:
    """`$1` gateway customer ids and `$3` gateways, `joined` by `$2`, `$4` whose tokens they have to be, if not null."""
    keys = _joined_pairs("customer", "gateway")
    names = columns_of(None if wanted is None else wanted | {"gateway", "gateway_customer_id"})
    owner = bindparam("owner", type_=Text())
    on = and_(TOKENS.c.gateway_customer_id == keys.c.customer, TOKENS.c.gateway == keys.c.gateway)
    query = (
        select(*_columns(TOKENS, names))
        .select_from(keys.join(TOKENS, on))
        .where(owner.is_(None) | (TOKENS.c.user_id == owner))
    )
    split = "string_to_array($1::text, $2::text), string_to_array($3::text, $2)"
    of_each = _of_each(names, split, "token_of_customer(keys.first, keys.gateway, $4, false)")
    arguments = ["customer", "separator", "gateway", "owner"]
    return statement("by_current_customers", query, arguments, names, distributed=of_each)


@lru_cache(_CACHED)
def by_customers(wanted: frozenset[str] | None) -> Statement:
    """`$1` gateway customer ids, `$2` gateways, in pairs; former identifiers find their user's token.

    A row begins with the pair that found it.
    """
    keys = _pairs("customer", "gateway")
    names = columns_of(wanted)
    current = select(*_columns(TOKENS, names)).where(
        TOKENS.c.gateway_customer_id == keys.c.customer, TOKENS.c.gateway == keys.c.gateway
    )
    owner = CUSTOMERS.alias()
    token = TOKENS.alias()
    former = (
        select(*_columns(token, names))
        .select_from(owner.join(token, and_(token.c.user_id == owner.c.user_id, token.c.gateway == owner.c.gateway)))
        .where(owner.c.gateway_customer_id == keys.c.customer, owner.c.gateway == keys.c.gateway)
    )
    found = union_all(current.correlate(keys), former.correlate(keys)).limit(literal_column("1")).lateral("found")
    query = select(keys.c.customer, keys.c.gateway, *found.c).select_from(keys.join(found, true()))
    of_each = _of_each(
        names, "$1::text[], $2::text[]", "token_of_customer(keys.first, keys.gateway, null, true)", "keys.*"
    )
    names = ("found_by_customer", "found_by_gateway", *names)
    return statement("by_customers", query, ["customer", "gateway"], names, distributed=of_each)


@lru_cache(_CACHED)
def of_users(wanted: frozenset[str] | None) -> Statement:
    """`$1` user ids `joined` by `$2`; tokens in any order."""
    names = columns_of(None if wanted is None else wanted | {"gateway"})
    return _by_user("of_users", select(*_columns(TOKENS, names)), names)


@lru_cache(_CACHED)
def of_users_as_json(fields: tuple[JsonField, ...]) -> Statement:
    """`$1` user ids `joined` by `$2`; for each one who has tokens the JSON text of the list of them, by gateway.

    The text is concatenated, because `json_agg` looks up how to write each column again for each row, which is slower.
    """
    lists = _lists()
    portable, sql_pg17 = _json_object(fields, pg17=False), _json_object(fields, pg17=True)
    return replace(
        lists,
        sql=lists.sql.replace(_ITEM, portable),
        sql_pg17=lists.sql.replace(_ITEM, sql_pg17),
        sql_distributed=lists.sql_distributed.replace(_ITEM, portable),
    )


_ITEM = "what a token looks like"


@cache
def _lists() -> Statement:
    """Users and the lists of their tokens, with `_ITEM` where a token's JSON belongs: what is compiled only once."""
    token, comma = literal_column(_ITEM, type_=Text()), aggregate_order_by(literal_column("','"), TOKENS.c.gateway)
    listed = literal_column("'['").concat(func.string_agg(token, comma)).concat(literal_column("']'"))
    query = select(TOKENS.c.user_id, listed.label("json")).group_by(TOKENS.c.user_id)
    return _by_user("of_users_as_json", query, ("user_id", "json"))


def _by_user(name: str, query: Select[*tuple[Any, ...]], names: Sequence[str]) -> Statement:
    """A query of users' tokens, which runs for each user: `= any(…)` looks for all users in all partitions.

    But Citus knows by that in which shards they are.
    """
    ids = func.string_to_array(bindparam("users", type_=Text()), bindparam("separator", type_=Text()))
    users = select(func.unnest(ids).label("user_id")).subquery("users")
    found = query.where(TOKENS.c.user_id == users.c.user_id).correlate(users).lateral("found")
    of_each = select(*found.c).select_from(users.join(found, true()))
    arguments = ["users", "separator"]
    of_all = _sql(query.where(TOKENS.c.user_id == any_(ids)), arguments)
    return statement(name, of_each, arguments, names, distributed=of_all)


@lru_cache(_CACHED)
def page(filters: tuple[str, ...], *, after: bool, before: bool, backwards: bool) -> Statement:
    """The arguments are the filters' values in this order, then two of each cursor, then how many rows.

    Rows are ordered by `created_at` and `id`, ascending, or descending where the page is read backwards.
    """
    query = select(*_columns(TOKENS, ALL)).where(*(FILTERS[name] for name in filters))
    place = (TOKENS.c.created_at, TOKENS.c.id)
    names = [*filters]
    for given, name in ((after, "after"), (before, "before")):
        if given:
            at = bindparam(f"{name}_at", type_=DateTime(timezone=True))
            token = bindparam(f"{name}_id", type_=Uuid(as_uuid=False))
            row, cursor = func.row(*place), func.row(at, token)
            query = query.where(row > cursor if name == "after" else row < cursor)
            names += [f"{name}_at", f"{name}_id"]
    order = [part.desc() if backwards else part.asc() for part in place]
    query = query.order_by(*order).limit(bindparam("rows"))
    return statement("page", query, [*names, "rows"], ALL)


@lru_cache(_CACHED)
def count(filters: tuple[str, ...]) -> Statement:
    """How many tokens there are; the arguments are the filters' values in this order."""
    query = select(func.count()).select_from(TOKENS).where(*(FILTERS[name] for name in filters))
    return statement("count", query, filters, ("count",))


def _moment(name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=DateTime(timezone=True))


FILTERS: dict[str, ColumnElement[bool]] = {
    "user_id": TOKENS.c.user_id == bindparam("user_id", type_=Text()),
    "gateway": TOKENS.c.gateway == bindparam("gateway", type_=Text()),
    "gateway_customer_id": TOKENS.c.gateway_customer_id == bindparam("gateway_customer_id", type_=Text()),
    "is_active": TOKENS.c.is_active == bindparam("is_active"),
    "created_after": TOKENS.c.created_at > _moment("created_after"),
    "created_before": TOKENS.c.created_at < _moment("created_before"),
    "updated_after": TOKENS.c.updated_at > _moment("updated_after"),
    "updated_before": TOKENS.c.updated_at < _moment("updated_before"),
    "not_verified_since": TOKENS.c.last_verified_at.is_(None)
    | (TOKENS.c.last_verified_at < _moment("not_verified_since")),
}


def _of_each(names: Sequence[str], keys: str, token: str, *others: str) -> str:
    """A query of tokens that a function of a distributed database finds, each on one worker."""
    columns = ", ".join([*others, *(f"t.{name}" for name in names)])
    return f"select {columns} from unnest({keys}) as keys(first, gateway) cross join lateral {token} t"  # noqa: S608 - names of ours


def _columns(table: FromClause, names: Sequence[str]) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in names]


def _array(name: str, item: Any) -> ColumnElement[Any]:
    return bindparam(name, type_=ARRAY(item))


def _pairs(first: str, second: str) -> FromClause:
    return _unnested(**{name: _array(name, Text()) for name in (first, second)})


def _joined_pairs(first: str, second: str) -> FromClause:
    return _unnested(**{name: _split(name) for name in (first, second)})


def _split(name: str) -> ColumnElement[Any]:
    return func.string_to_array(bindparam(name, type_=Text()), bindparam("separator", type_=Text()))


def _unnested(**arrays: ColumnElement[Any]) -> FromClause:
    columns = [column(name, Text()) for name in arrays]
    return func.unnest(*arrays.values()).table_valued(*columns, name="keys").render_derived()


def _json_object(fields: Sequence[JsonField], *, pg17: bool) -> str:
    """The SQL of a row as the JSON text of an object. Names of fields and types need no escapes.

    `||` joins the parts: `concat` looks up how to write each of them, which takes twice as long.
    """
    parts: list[str] = []
    text = "{"
    for key, name, literal in fields:
        text += f'"{key}":'
        if name is None:
            text += f'"{literal}"'
        else:
            before, value, after = _json_value(name, pg17=pg17)
            parts += [f"'{text}{before}'", value]
            text = after
        text += ","
    return " || ".join([*parts, f"'{text[:-1]}}}'"])


@cache
def _json_value(name: str, *, pg17: bool) -> tuple[str, str, str]:
    """The SQL of a column as the contract's JSON has it, and the text that still belongs before and after its value.

    It is compiled here: that takes longer than all the rest of a statement, and most have the same columns.
    """
    before, value, after = _json_parts(TOKENS.c[name], pg17=pg17)
    return before, value.compile(dialect=_DIALECT).string, after


def _json_parts(shown: Column[Any], *, pg17: bool) -> tuple[str, ColumnElement[Any], str]:
    quotes, value = "", cast(shown, Text())  # what has quotes here is never null
    if isinstance(shown.type, DateTime):
        value = _iso(shown, pg17=pg17)
    elif isinstance(shown.type, Boolean):
        value = case((shown, literal_column("'true'")), else_=literal_column("'false'"))
    elif isinstance(shown.type, Uuid):
        quotes = '"'
    elif shown is TOKENS.c.gateway:  # its constraint allows nothing that JSON would escape
        quotes, value = '"', shown
    elif isinstance(shown.type, Text):
        value = _json(shown, pg17=pg17)
    return (quotes, value, quotes) if not shown.nullable else ("", func.coalesce(value, literal_column("'null'")), "")


def _json(value: ColumnElement[Any], *, pg17: bool) -> ColumnElement[Any]:
    """`to_json` looks up how to write its argument for each row; `json_scalar` takes half the time, from 17 on."""
    return cast(func.json_scalar(value) if pg17 else func.to_json(value), Text())


def _iso(moment: Column[Any], *, pg17: bool) -> ColumnElement[Any]:
    """A time as JSON, in UTC with six digits of the second; `pg17` relies on the session's time zone.

    Both JSON functions take a third of the time of `to_char`, but omit trailing zeros: they are used only if
    the sixth digit is not zero.
    """
    utc = func.timezone(literal_column("'UTC'"), moment)
    if pg17:
        short = _json(moment, pg17=pg17)
    else:
        short = func.rtrim(_json(utc, pg17=pg17), literal_column("""'"'""")).concat(literal_column("""'+00:00"'"""))
    full = func.to_char(utc, literal_column(r"""'\"YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"\"'"""))
    return case((cast(moment, TIMESTAMP(timezone=True, precision=5)) != moment, short), else_=full)
