"""What a gateway lists as its customers, beside what we store of them: a temporary table, and what differs."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from graphql_api.storage.connection import Row
from graphql_api.storage.connector import RawConnection

_LIST = "create temporary table listed (gateway_customer_id text not null) on commit drop"
_INDEX = "create index on listed (gateway_customer_id); analyze listed"
_IS_LISTED = "exists (select from listed where listed.gateway_customer_id = t.gateway_customer_id)"
# Active when the listing began, by an identifier that was known then, and not in it.
_IS_MISSING = f"""(
  t.is_active and t.created_at < $2 and t.activated_at < $2 and not {_IS_LISTED}
  and not exists (
    select from gateway_customers c
    where c.gateway_customer_id = t.gateway_customer_id and c.gateway = t.gateway and c.since >= $2
  )
)"""
_MISSING = f"select t.* from customer_gateway_tokens t where t.gateway = $1 and {_IS_MISSING}"
_UNKNOWN = """
  select distinct gateway_customer_id from listed where not exists (
    select from gateway_customers c where c.gateway_customer_id = listed.gateway_customer_id and c.gateway = $1
  ) and not exists (
    select from customer_gateway_tokens t where t.gateway_customer_id = listed.gateway_customer_id and t.gateway = $1
  )
"""
_COUNTS = f"""
  select
    (select count(*) from listed) as listed,
    (select count(*) from customer_gateway_tokens t where gateway = $1 and {_IS_LISTED}) as known,
    (select count(*) from customer_gateway_tokens t where gateway = $1 and is_active) as active,
    (select count(*) from ({_MISSING}) as missing) as missing,
    (select count(*) from ({_UNKNOWN}) as unknown) as unknown
"""
_REPORT = f"""
  (select 'MISSING_THERE' as difference, gateway_customer_id as "gatewayCustomerId", user_id as "userId", id
   from ({_MISSING}) as missing order by 2)
  union all
  (select 'UNKNOWN_HERE', gateway_customer_id, null, null from ({_UNKNOWN}) as unknown order by 2)
"""
_CHANGES = f"""
  select created_at, id, user_id, gateway_customer_id, {_IS_LISTED} as is_listed from customer_gateway_tokens t
  where gateway = $1 and (created_at, id) > ($3, $4)
    and case when {_IS_LISTED} then last_verified_at is null or last_verified_at < $2 else {_IS_MISSING} end
  order by created_at, id limit $5
"""


class ListCounts(NamedTuple):
    """What the list has, and what of the gateway's tokens has to do with it."""

    listed: int  # identifiers
    known: int  # tokens whose identifier is listed
    active: int  # active tokens
    missing: int  # active tokens that should be listed and are not
    unknown: int  # identifiers that no user has or had

    def __str__(self) -> str:
        return (
            f"{self.listed:,} listed, {self.known:,} known here, {self.missing:,} missing there, "
            f"{self.unknown:,} unknown here"
        )


class CustomerList:
    """A gateway's customers as they were at some moment, for as long as the transaction of this connection lasts."""

    def __init__(self, raw: RawConnection, gateway: str, at: datetime) -> None:
        self.gateway = gateway
        self.at = at
        self._raw = raw

    async def load(self, customers: Iterable[str]) -> None:
        """Take up these identifiers."""
        await self._raw.execute(_LIST)
        await self._raw.copy_records_to_table("listed", records=((customer,) for customer in customers))
        await self._raw.execute(_INDEX)

    async def counts(self) -> ListCounts:
        """Count what is the same and what differs."""
        [row] = await self._raw.fetch(_COUNTS, self.gateway, self.at)
        return ListCounts(*row)

    async def report(self, write: Callable[[bytes], object]) -> None:
        """Write what differs as CSV."""

        async def output(chunk: bytes) -> None:
            write(chunk)

        await self._raw.copy_from_query(_REPORT, self.gateway, self.at, output=output, format="csv", header=True)

    async def changes(self, after: tuple[datetime, str], size: int) -> Sequence[Row]:
        """The next tokens, in the order of their making, that are missing, or listed and not verified since."""
        return await self._raw.fetch(_CHANGES, self.gateway, self.at, *after, size)
