"""What the service's role needs in the database, and which grants it lacks. docs/database-roles.md lists them."""

import asyncpg

from graphql_api.storage.models import CustomerGatewayTokenRow

_ON_A_TABLE = "select, insert, update, delete"
_ERASE = "erase_history(uuid[], text)"
_NO_SCHEMA = """
select format('grant usage on schema %I to %I', schema, current_user) from (
  select coalesce(min(nspname), 'public') as schema, min(nspname) is not null or current_schema() is null as is_needed
  from pg_class join pg_namespace on pg_namespace.oid = relnamespace where relname = 'customer_gateway_tokens'
) as tables where to_regclass('customer_gateway_tokens') is null and is_needed
  and not coalesce(has_schema_privilege(to_regnamespace(quote_ident(schema)), 'usage'), true)"""
_ELSEWHERE = """
select current_setting('search_path'), string_agg(nspname, ', ')
from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where relname = 'customer_gateway_tokens' and to_regclass(relname) is null"""
# What is not there, because the database is not migrated, is null and so needs nothing.
_MISSING = """
select format('grant %s on %I to %I', string_agg(privilege, ', ' order by place), name, current_user)
from unnest($1::text[]) with ordinality as needed(item, place),
  split_part(item, ' ', 2) as name, split_part(item, ' ', 1) as privilege
where not has_table_privilege(to_regclass(name), privilege) group by name
union all
select format('grant execute on function erase_history to %I', current_user)
where not has_function_privilege(to_regprocedure($2), 'execute')
union all
select format('grant temporary on database %I to %I', current_database(), current_user)
where not has_database_privilege(current_database(), 'temporary')
order by 1"""


async def missing_grants(connection: asyncpg.Connection) -> list[str]:
    """The statements that give this connection's role what it lacks, for the owner or a superuser to run."""
    if statement := await connection.fetchval(_NO_SCHEMA):
        return [statement]
    tables = CustomerGatewayTokenRow.metadata.tables.values()
    granted = {table.name: table.info.get("granted", _ON_A_TABLE) for table in tables}
    granted["alembic_version"] = "select"
    needed = [f"{privilege} {name}" for name, all_ in granted.items() for privilege in all_.split(", ")]
    return [statement for (statement,) in await connection.fetch(_MISSING, needed, _ERASE)]


async def elsewhere(connection: asyncpg.Connection) -> tuple[str, str] | None:
    """This role's `search_path` and the schemas that have the tables, if they are not in it."""
    path, schemas = await connection.fetchrow(_ELSEWHERE) or ("", None)
    return (path, schemas) if schemas else None
