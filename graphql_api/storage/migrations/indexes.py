"""Builds indexes while others write, for migrations: on a table as it is, whether it is partitioned or not."""

from alembic import op
from sqlalchemy import text

# The partitions that have no part of this index yet.
_PARTS = text("""
select part.inhrelid::regclass::text from pg_inherits part
where part.inhparent = to_regclass(:table) and not exists (
  select from pg_inherits child join pg_index i on i.indexrelid = child.inhrelid
  where child.inhparent = to_regclass(:name) and i.indrelid = part.inhrelid
) order by 1
""")


def create_index(name: str, table: str, definition: str) -> None:
    """Build an index, such as `create_index("by_age", "notes", "(created_at)")`, and what of it is missing.

    PostgreSQL builds none of a partitioned table concurrently: each partition gets its own, and together they are it.
    The name has to leave room for a partition's suffix.
    """
    parts = [row[0] for row in op.get_bind().execute(_PARTS, {"table": table, "name": name})]
    if parts:
        op.execute(f"create index if not exists {name} on only {table} {definition}")
    with op.get_context().autocommit_block():
        for number, part in enumerate(parts or [table]):
            built = f"{name}_p{number}" if parts else name
            op.execute(f"drop index concurrently if exists {built}")
            op.execute(f"create index concurrently {built} on {part} {definition}")
    for number, _ in enumerate(parts):
        op.execute(f"alter index {name} attach partition {name}_p{number}")
