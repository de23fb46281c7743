"""The options that several commands have."""

import os
from pathlib import Path
from typing import Annotated

import typer


def must_be_readable(file: Path | None) -> Path | None:
    """The file that an option names.

    Raises:
        typer.BadParameter: it cannot be read.
    """
    if file is not None and file != Path("-") and not os.access(file, os.R_OK):
        raise typer.BadParameter(f"{file} does not exist or is not readable.")
    return file


EmbeddedOption = Annotated[
    bool,
    typer.Option(
        "--embedded",
        help="If DATABASE_URL is not set, use the embedded PostgreSQL (in DATA_DIR, default .data).",
    ),
]
GatewayOption = Annotated[str, typer.Option(help="The gateway, such as STRIPE.", metavar="NAME")]
LimitOption = Annotated[int | None, typer.Option(help="Stop after N customers.", metavar="N", min=1)]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
ReportOption = Annotated[
    Path | None, typer.Option(help="Write a report of the customers to this CSV file.", metavar="FILE", dir_okay=False)
]
