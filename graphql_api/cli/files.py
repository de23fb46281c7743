"""The commands that read or write files of tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphql_api.cli.options import EmbeddedOption, GatewayOption, must_be_readable
from graphql_api.cli.process import run_bulk

if TYPE_CHECKING:
    from graphql_api.bulk.jobs import FileOptions

commands = typer.Typer()

FormatOption = Annotated[
    Literal["csv", "jsonl"] | None,
    typer.Option("--format", help="The format of FILE, if it cannot be detected."),
]
RejectsOption = Annotated[
    Path | None,
    typer.Option(
        "--rejects",
        help=(
            "The file for rejected lines and the reasons, also with --check. If lines are rejected, the file is "
            "overwritten; otherwise, an existing file is kept. Default: FILE.rejects.csv, or FILE.rejects.jsonl for "
            "JSON."
        ),
        metavar="FILE",
        dir_okay=False,
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(help="The encoding of FILE, such as windows-1252. Default: UTF-8 or UTF-16.", metavar="NAME"),
]
DelimiterOption = Annotated[
    str | None, typer.Option(help="The delimiter of a CSV file. Default: detected from the header.", metavar="CHAR")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="The column of FILE that contains FIELD, if it is not recognized.",
        metavar="FIELD=COLUMN",
    ),
]
CheckOption = Annotated[
    bool, typer.Option("--check", "--dry-run", help="Read everything, report what would change, and save nothing.")
]
FileToRead = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A CSV or JSON file, which may be compressed (.gz, .zst), or - for standard input.",
        dir_okay=False,
        callback=must_be_readable,  # before a database is started for it
    ),
]
FileToWrite = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A CSV or JSON Lines file, compressed if it ends in .gz or .zst, or - for standard output.",
        dir_okay=False,
    ),
]


def _file_options(
    file: Path,
    *,
    format_: Literal["csv", "jsonl"] | None,
    encoding: str | None,
    delimiter: str | None,
    columns: list[str] | None,
    rejects: Path | None,
    check: bool,
    only_column: str | None = None,
    skip_unknown_columns: bool = False,
    gateway: str | None = None,
) -> "FileOptions":
    """The options that all commands have that read a file; `only_column` is what a name alone means."""
    from graphql_api.bulk.files.opening import ReadOptions
    from graphql_api.bulk.jobs import FileOptions

    if delimiter is not None and (delimiter := delimiter.replace("\\t", "\t")) not in {",", ";", "\t", "|", ":", " "}:
        raise typer.BadParameter("--delimiter must be one of , ; \\t | : or a space.")
    meanings: dict[str, str] = {}
    for column in columns or ():
        meaning, is_named, name = column.partition("=")
        if not is_named and only_column is None:
            raise typer.BadParameter("--column must be FIELD=COLUMN.")
        meanings[meaning if is_named else only_column or ""] = name if is_named else column
    read = ReadOptions(format_, encoding, delimiter, meanings, skip_unknown_columns, gateway)
    return FileOptions(file, read, rejects, check)


@commands.command(name="import")
def import_(
    file: FileToRead,
    *,
    gateway: Annotated[
        str | None, typer.Option(help="The gateway of lines that have none, such as STRIPE.", metavar="NAME")
    ] = None,
    check: CheckOption = False,
    rejects: RejectsOption = None,
    format_: FormatOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    column: ColumnOption = None,
    embedded: EmbeddedOption = False,
    skip_unknown_columns: Annotated[
        bool, typer.Option("--skip-unknown-columns", help="Skip columns that a token does not have.")
    ] = False,
) -> None:
    """Save the tokens in a file. Invalid lines are reported; the rest is saved.

    The columns userId, gateway and gatewayCustomerId are required. If the user has no token at the gateway, the
    import creates one from the columns that `export` writes; columns that FILE lacks get defaults. If the user has a
    token, the import updates only description, metadata and isActive, and treats lastVerifiedAt and GATEWAY_DELETED
    as reports from the gateway. You can repeat an import: identical tokens are not changed.
    """
    from graphql_api.bulk.jobs import import_file

    options = _file_options(
        file,
        format_=format_,
        encoding=encoding,
        delimiter=delimiter,
        columns=column,
        rejects=rejects,
        check=check,
        skip_unknown_columns=skip_unknown_columns,
        gateway=gateway,
    )
    run_bulk(lambda pool, gateways: import_file(pool, gateways, options), embedded=embedded, creates=not check)


@commands.command()
def export(
    file: FileToWrite,
    *,
    format_: FormatOption = None,
    embedded: EmbeddedOption = False,
    for_spreadsheets: Annotated[
        bool,
        typer.Option("--for-spreadsheets", help="Escape formulas with an apostrophe."),
    ] = False,
) -> None:
    """Write all tokens to a file. An existing file is replaced when the export is complete.

    You can import the file again, unless you exported it with --for-spreadsheets.
    """
    from graphql_api.bulk.files.opening import format_of
    from graphql_api.bulk.jobs import export_file

    format_of(file, format_)  # before a database is started for it
    run_bulk(lambda pool, _: export_file(pool, file, format_, for_spreadsheets=for_spreadsheets), embedded=embedded)


@commands.command()
def remap(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    check: CheckOption = False,
    rejects: RejectsOption = None,
    format_: FormatOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    column: ColumnOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Replace customer ids after a move to another gateway account. FILE has the columns old and new.

    You can use Stripe's copy and mapping files without changes.
    """
    from graphql_api.bulk.jobs import remap_file

    options = _file_options(
        file,
        format_=format_,
        encoding=encoding,
        delimiter=delimiter,
        columns=column,
        rejects=rejects,
        check=check,
    )
    run_bulk(lambda pool, gateways: remap_file(pool, gateways, options, gateway=gateway), embedded=embedded)


@commands.command()
def reconcile(
    file: FileToRead,
    *,
    gateway: GatewayOption,
    apply: Annotated[
        bool, typer.Option("--apply", help="Deactivate the tokens that the list lacks, and verify the others.")
    ] = False,
    exported_at: Annotated[
        str | None,
        typer.Option(
            help="When the export began, such as 2026-11-30T08:00:00Z; tokens that were saved later are not compared. "
            "Required with --apply. Default: when FILE was last modified.",
            metavar="TIME",
        ),
    ] = None,
    max_missing: Annotated[
        float,
        typer.Option(
            help="Apply nothing if more than PERCENT of the active tokens are missing.",
            metavar="PERCENT",
            min=0,
            max=100,
        ),
    ] = 10,
    allow_unreadable: Annotated[
        int, typer.Option(help="Apply nothing if more than N lines are unreadable.", metavar="N", min=0)
    ] = 0,
    report: Annotated[
        Path | None,
        typer.Option(help="The file for the differences. Default: FILE.report.csv.", metavar="FILE", dir_okay=False),
    ] = None,
    check: CheckOption = False,
    rejects: RejectsOption = None,
    format_: FormatOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    column: ColumnOption = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Compare tokens with a gateway's list of customers. Differences in both directions go to a report.

    The report contains active tokens whose customer the list lacks, inactive tokens whose customer is listed, and
    listed customers that have no token. Without --apply, nothing changes.
    """
    from graphql_api.bulk.jobs import reconcile_file
    from graphql_api.bulk.reconciling import Guards

    if check and apply:
        raise typer.BadParameter("--check and --apply cannot be used together.")
    options = _file_options(
        file,
        format_=format_,
        encoding=encoding,
        delimiter=delimiter,
        columns=column,
        rejects=rejects,
        check=check,
        only_column="id",
    )
    guards = Guards(max_missing, allow_unreadable) if apply else None
    run_bulk(
        lambda pool, gateways: reconcile_file(
            pool, gateways, options, gateway=gateway, exported_at=exported_at, report=report, guards=guards
        ),
        embedded=embedded,
    )
