"""Exports all tokens as a stream of bytes, with COPY."""

from collections.abc import Awaitable, Callable

from graphql_api.storage.connector import RawConnection, adapt


def _instant(name: str) -> str:
    return f"""to_char({name} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""


# Column names of the file → SQL expressions.
_EXPORTED = {
    "id": "id",
    "userId": "user_id",
    "gateway": "gateway",
    "gatewayCustomerId": "gateway_customer_id",
    "description": "description",
    "metadata": "metadata",
    "isActive": "is_active",
    "createdAt": _instant("created_at"),
    "updatedAt": _instant("updated_at"),
    "version": "version",
    "activatedAt": _instant("activated_at"),
    "deactivatedAt": _instant("deactivated_at"),
    "deactivationReason": "deactivation_reason",
    "lastVerifiedAt": _instant("last_verified_at"),
    "formerGatewayCustomerIds": """(
      select json_agg(c.gateway_customer_id order by since, c.gateway_customer_id) from gateway_customers c
      where c.user_id = t.user_id and c.gateway = t.gateway and c.gateway_customer_id <> t.gateway_customer_id
    )""",
}
# Columns with free text, and the characters that start a formula in a spreadsheet.
_TEXTS = ("user_id", "gateway_customer_id", "description")
_FORMULA = "^[-=+@\\t\\r]"
_SELECTED = ", ".join(f'{value} as "{name}"' for name, value in _EXPORTED.items())
_EXPORT = f"select {_SELECTED} from customer_gateway_tokens t order by created_at, id"
# Citus joins no rows of the workers with those of the coordinator one by one, so they come there first.
_FETCHED = "with customer_gateway_tokens as materialized (select * from customer_gateway_tokens) "


async def export_csv(raw: RawConnection, write: Callable[[bytes], object], *, escapes_formulas: bool) -> int:
    """Write all tokens of one snapshot as CSV with a header, in creation order. Returns their number."""
    rows = _EXPORT.replace("is_active as", "case when is_active then 'true' else 'false' end as")
    for column in _TEXTS if escapes_formulas else ():
        rows = rows.replace(f"{column} as", f"regexp_replace({column}, '{_FORMULA}', '''\\&') as")
    rows = await _fetched(raw) + rows
    status = await raw.copy_from_query(rows, output=_as_coroutine(write), format="csv", header=True)
    return _count(status)


async def export_json_lines(raw: RawConnection, write: Callable[[bytes], object]) -> int:
    """Write them as JSON Lines instead."""
    lines = f"{await _fetched(raw)}select row_to_json(token) from ({_EXPORT}) as token"
    # JSON text contains neither of these two characters, so COPY quotes nothing.
    status = await raw.copy_from_query(lines, output=_as_coroutine(write), format="csv", delimiter="\x01", quote="\x02")
    return _count(status)


async def _fetched(raw: RawConnection) -> str:
    return _FETCHED if await adapt(raw) else ""


def _as_coroutine(write: Callable[[bytes], object]) -> Callable[[bytes], Awaitable[None]]:
    async def output(chunk: bytes) -> None:
        write(chunk)

    return output


def _count(status: str) -> int:
    return int(status.removeprefix("COPY "))
