"""A gateway's list of customers in a temporary table, and its differences from the stored tokens."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from graphql_api.storage.connection import Row, Statement
from graphql_api.storage.connector import RawConnection, adapt

# Prefixes of other objects that programs confuse with customers: payment methods, tokens, cards, sources.
_OTHER_PREFIXES = ("pm_", "tok_", "card_", "src_")

_LIST = "create temporary table listed (gateway_customer_id text not null, is_deleted bool not null) on commit drop"
_INDEX = "create index on listed (gateway_customer_id); analyze listed"
# In place of a distributed table: Citus joins none with a temporary one row by row.
_FETCH = """
  create temporary table customer_gateway_tokens on commit drop as
  select * from customer_gateway_tokens where gateway = '{}';
  create index on customer_gateway_tokens (created_at, id);
  create index on customer_gateway_tokens (gateway_customer_id);
  analyze customer_gateway_tokens
"""
_LISTED = "select from listed where listed.gateway_customer_id = t.gateway_customer_id"
_IS_LISTED = f"exists ({_LISTED} and not listed.is_deleted)"
_IS_DELETED = f"(not {_IS_LISTED} and exists ({_LISTED}))"
# Tokens that had this id when the listing began, and are not in the list.
_IS_ABSENT = f"""(
  t.created_at < $2 and t.activated_at < $2 and not exists ({_LISTED})
  and not exists (
    select from gateway_customers c
    where c.gateway_customer_id = t.gateway_customer_id and c.gateway = t.gateway and c.since >= $2
  )
)"""
# Customers that are listed as deleted, unless something later is known, as `domain.facts` says. The time of a list may
# be that of a whole second, too.
_IS_GONE = f"""(
  {_IS_DELETED} and coalesce(t.last_verified_at <= $2, true) and (t.activated_at = t.created_at or t.activated_at <= $2
    or (date_trunc('second', $2::timestamptz) = $2 and date_trunc('second', t.activated_at) = $2))
)"""
_IS_MISSING = f"(t.is_active and ({_IS_ABSENT} or {_IS_GONE}))"
_MISSING_THERE = f"""
  select t.*, case when {_IS_DELETED} then 'DELETED' else 'NOT_LISTED' end as reason
  from customer_gateway_tokens t where t.gateway = $1 and {_IS_MISSING}
"""
_INACTIVE_HERE = f"""
  select t.*, deactivation_reason as reason
  from customer_gateway_tokens t where t.gateway = $1 and not t.is_active and {_IS_LISTED}
"""
_MISSING_HERE = """
  select distinct gateway_customer_id from listed where not is_deleted and not exists (
    select from gateway_customers c where c.gateway_customer_id = listed.gateway_customer_id and c.gateway = $1
  ) and not exists (
    select from customer_gateway_tokens t where t.gateway_customer_id = listed.gateway_customer_id and t.gateway = $1
  )
"""
_COUNTS = f"""
  with missing as ({_MISSING_THERE})
  select
    (select count(*) from listed) as listed,
    (select count(*) from customer_gateway_tokens t where gateway = $1 and {_IS_LISTED}) as known,
    (select count(*) from customer_gateway_tokens t where gateway = $1 and is_active) as active,
    (select count(*) from missing) as missing_there,
    (select count(*) from missing where reason = 'NOT_LISTED') as not_listed,
    (select count(*) from ({_INACTIVE_HERE}) as inactive) as inactive_here,
    (select count(*) from ({_MISSING_HERE}) as unknown) as missing_here,
    (select count(*) from customer_gateway_tokens t
     where gateway = $1 and is_active and not exists ({_LISTED}) and not {_IS_ABSENT}) as saved_later
"""
_REPORT = f"""
  (select 'MISSING_THERE' as difference, reason, user_id as "userId", gateway,
     gateway_customer_id as "gatewayCustomerId", id
   from ({_MISSING_THERE}) as missing order by gateway_customer_id)
  union all
  (select 'INACTIVE_HERE', reason, user_id, gateway, gateway_customer_id, id
   from ({_INACTIVE_HERE}) as inactive order by gateway_customer_id)
  union all
  (select 'MISSING_HERE', 'UNKNOWN', null, $1::text, gateway_customer_id, null
   from ({_MISSING_HERE}) as unknown order by gateway_customer_id)
"""
_CHANGES = f"""
  select created_at, id, user_id, gateway_customer_id, {_IS_LISTED} as is_listed from customer_gateway_tokens t
  where gateway = $1 and (created_at, id) > ($3, $4)
    and case when {_IS_LISTED} then last_verified_at is null or last_verified_at < $2
    else ({_IS_ABSENT} or {_IS_DELETED}) and (
      t.is_active or (t.deactivation_reason = 'GATEWAY_DELETED' and t.deactivated_at < $2)
      or (t.deactivation_reason <> 'GATEWAY_DELETED' and not exists (
        select from gateway_customer_reports r
        where r.gateway_customer_id = t.gateway_customer_id and r.gateway = t.gateway and r.gone_at >= $2
      ))
    ) end
  order by created_at, id limit $5
"""
# Customers without a token: those listed as deleted, and those that exist although something else was reported.
_UNSAVED = """
  with l as (
    select gateway_customer_id, bool_and(is_deleted) as is_deleted from listed where gateway_customer_id > $3
    group by gateway_customer_id
  )
  select l.* from l left join gateway_customer_reports r on
    r.gateway_customer_id = l.gateway_customer_id and r.gateway = $1
  where case when is_deleted then coalesce(r.gone_at, '-infinity') else coalesce(r.exists_at, r.gone_at) end < $2
    and not exists (
      select from customer_gateway_tokens t where t.gateway_customer_id = l.gateway_customer_id and t.gateway = $1
    )
  order by l.gateway_customer_id limit $4
"""
GATEWAYS = Statement("gateways_with_tokens", "select distinct gateway from customer_gateway_tokens order by gateway")
HAS_TOKENS = Statement("has_tokens", "select exists (select 1 from customer_gateway_tokens where gateway = $1)")


def _between(prefix: str) -> str:
    """A condition for ids with this prefix that can use the index under any collation."""
    word = prefix.removesuffix("_")
    following = word[:-1] + chr(ord(word[-1]) + 1)
    return (
        f"(gateway_customer_id >= '{word}' and gateway_customer_id < '{following}'"
        f" and starts_with(gateway_customer_id, '{prefix}'))"
    )


# How many ids at each gateway are those of other objects.
OTHER_OBJECTS = Statement(
    "identifiers_of_other_objects",
    f"""
    select gateway, count(*) from customer_gateway_tokens where {" or ".join(map(_between, _OTHER_PREFIXES))}
    group by gateway order by gateway
    """,
)


class ListedCustomer(NamedTuple):
    """A customer in the gateway's list."""

    gateway_customer_id: str
    is_deleted: bool


class ListCounts(NamedTuple):
    """How the list and the gateway's tokens compare."""

    listed: int  # customers
    known: int  # tokens whose customer is listed
    active: int  # active tokens
    missing_there: int  # active tokens whose customer should be listed and is not, or is listed as deleted
    not_listed: int  # of these, those that are not listed at all
    inactive_here: int  # inactive tokens whose customer is listed
    missing_here: int  # customers that no user has or had
    saved_later: int  # active tokens that cannot be listed yet

    @property
    def differences(self) -> int:
        """The number of lines in the report."""
        return self.missing_there + self.inactive_here + self.missing_here

    def __str__(self) -> str:
        later = f", {self.saved_later:,} saved after the list and not compared" if self.saved_later else ""
        return (
            f"{self.listed:,} listed, {self.known:,} known here, {self.missing_there:,} missing there, "
            f"{self.inactive_here:,} inactive here, {self.missing_here:,} missing here{later}"
        )


class CustomerList:
    """A gateway's customers at one moment. The table lasts until the transaction of its connection ends."""

    def __init__(self, raw: RawConnection, gateway: str, at: datetime) -> None:
        self.gateway = gateway
        self.at = at
        self._raw = raw
        self._is_copy = False

    async def load(self, customers: Iterable[ListedCustomer]) -> None:
        """Add these customers to the temporary table."""
        self._is_copy = await adapt(self._raw)
        if self._is_copy:
            await self._raw.execute(_FETCH.format(self.gateway))
        await self._raw.execute(_LIST)
        await self._raw.copy_records_to_table("listed", records=customers)
        await self._raw.execute(_INDEX)

    async def refresh(self) -> None:
        """Fetch the tokens again if the list is compared with a copy of them."""
        if self._is_copy:
            await self._raw.execute(f"drop table pg_temp.customer_gateway_tokens; {_FETCH.format(self.gateway)}")

    async def counts(self) -> ListCounts:
        """Count matches and differences."""
        [row] = await self._raw.fetch(_COUNTS, self.gateway, self.at)
        return ListCounts(*row)

    async def report(self, write: Callable[[bytes], object]) -> None:
        """Write the differences as CSV."""

        async def output(chunk: bytes) -> None:
            write(chunk)

        await self._raw.copy_from_query(_REPORT, self.gateway, self.at, output=output, format="csv", header=True)

    async def changes(self, after: tuple[datetime, str], size: int) -> Sequence[Row]:
        """The next tokens, in creation order, of which the list says something that is not known."""
        return await self._raw.fetch(_CHANGES, self.gateway, self.at, *after, size)

    async def unsaved(self, after: str, size: int) -> Sequence[Row]:
        """The next customers without a token, in the order of their ids, of which it says something that counts."""
        return await self._raw.fetch(_UNSAVED, self.gateway, self.at, after, size)
