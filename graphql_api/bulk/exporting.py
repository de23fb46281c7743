"""All tokens into a file, as one moment has them."""

from collections.abc import Callable

from graphql_api.bulk.records import Format
from graphql_api.storage.connector import RawConnection
from graphql_api.storage.export import export_csv, export_json_lines


async def export(raw: RawConnection, format_: Format, write: Callable[[bytes], object]) -> int:
    """Write every token in creation order, in one transaction. Returns how many there are."""
    export_format = export_csv if format_ == "csv" else export_json_lines
    return await export_format(raw, write)
