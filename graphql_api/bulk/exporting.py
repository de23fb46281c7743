"""All tokens into a file, as one moment has them."""

import codecs
from collections.abc import Callable

from graphql_api.bulk.records import Format
from graphql_api.storage.connector import RawConnection
from graphql_api.storage.export import export_csv, export_json_lines


async def export(
    raw: RawConnection, format_: Format, write: Callable[[bytes], object], *, for_spreadsheets: bool = False
) -> int:
    """Write every token in creation order, in one transaction. Returns how many there are.

    A CSV file for spreadsheets has an apostrophe before each text that they would take for a formula.
    """
    if format_ == "jsonl":
        return await export_json_lines(raw, write)
    if for_spreadsheets:
        write(codecs.BOM_UTF8)  # without it, Excel takes the text for another encoding
    return await export_csv(raw, write, escapes_formulas=for_spreadsheets)
